# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors

from dataclasses import replace

import pytest
import torch

from boxwright.config import from_yaml, override, to_yaml
from boxwright.engine.recipe import Recipe
from boxwright.errors import ConfigError
from boxwright.losses.assign.anchor_ratio import AnchorRatio
from boxwright.losses.terms.matched_scores import ExclusiveScores, HardScores
from boxwright.models.heads.branches import MaskConfig
from boxwright.presets import preset
from boxwright.structures import Targets
from boxwright.vocabulary import AttributeSpec, KeypointSpec

SIDE = 128  # px; a multiple of 64, so that P6 has more than one cell
SMALLEST = ["yolov5n", "yolov5n-seg", "yolov5n6", "yolov5n6-seg", "yolov5s-r5"]


def gains_of(recipe: Recipe) -> dict[str, float]:
    return {name: weighted.gain for name, weighted in recipe.criterion.rules["main"].terms.items()}


def labels(classes: int, masks: bool = False, **more) -> Targets:
    """Objects of many sizes, so that every level has some."""
    sides = torch.tensor([8.0, 14, 25, 40, 60, 90, 120, 128])
    corner = (SIDE - sides) / 2
    boxes = torch.stack((corner, corner, corner + sides, corner + sides * 0.9), 1).repeat(2, 1, 1)
    drawn = torch.zeros(2, SIDE // 4, SIDE // 4, dtype=torch.int32)
    for slot in reversed(range(len(sides))):
        x, y = int(corner[slot] / 4), int(corner[slot] / 4)
        drawn[:, y : -y or None, x : -x or None] = slot + 1
    return Targets(
        labels=torch.arange(16).view(2, 8) % classes,
        boxes=boxes,
        valid=torch.ones(2, 8, dtype=torch.bool),
        instance_map=drawn if masks else None,
        **more,
    )


def step(recipe: Recipe, targets: Targets):
    """One prepared step from random weights: the loss, and the parameters it does not reach."""
    torch.manual_seed(0)
    model = recipe.model.build()
    outputs = model(torch.rand(2, 3, SIDE, SIDE))
    loss = recipe.criterion(outputs, recipe.criterion.prepare(targets, model.grid((SIDE, SIDE))))
    loss.total.backward()
    assert torch.isfinite(loss.total)
    return loss, [name for name, value in model.named_parameters() if value.grad is None or not value.grad.any()]


@pytest.mark.parametrize(
    ("name", "widths", "depths", "neck_widths", "neck_depth"),
    [
        ("yolov5n", (16, 32, 64, 128, 256), (1, 2, 3, 1), (64, 128, 256), 1),
        ("yolov5m", (48, 96, 192, 384, 768), (2, 4, 6, 2), (192, 384, 768), 2),
        ("yolov5x", (80, 160, 320, 640, 1280), (4, 8, 12, 4), (320, 640, 1280), 4),
        ("yolov5s6", (32, 64, 128, 256, 384, 512), (1, 2, 3, 1, 1), (128, 256, 384, 512), 1),
        ("yolov5l-r5", (64, 128, 256, 512, 1024), (3, 9, 9, 3), (256, 512, 1024), 3),
    ],
)
def test_sizes(name, widths, depths, neck_widths, neck_depth):
    model = preset(name).model

    assert (model.backbone.widths, model.backbone.depths) == (widths, depths)
    assert (model.neck.widths, model.neck.depth) == (neck_widths, neck_depth)


@pytest.mark.parametrize("name", ["yolov5n", "yolov5x-seg", "yolov5m6", "yolov5l-r5"])
def test_recipes_survive_yaml(name):
    recipe = preset(name, num_classes=7)

    assert recipe.name == name
    assert from_yaml(Recipe, to_yaml(recipe)) == recipe


def test_the_published_criterion():
    recipe = preset("yolov5n")
    rule = recipe.criterion.rules["main"]

    assert rule.assigner == AnchorRatio(ratio=4.0, bias=0.5)
    assert isinstance(rule.terms["cls"].term, HardScores)
    assert gains_of(recipe) == {"box": 0.05, "obj": 1.0, "cls": 0.5}


def test_gains_follow_classes_image_side_and_levels():
    """Box 0.05 * 3/L; objectness (S/640)^2 * 3/L; classes 0.5 * C/80 * 3/L; masks as the box."""
    assert gains_of(preset("yolov5n", num_classes=20, imgsz=320)) == {"box": 0.05, "obj": 0.25, "cls": 0.125}
    assert gains_of(preset("yolov5n6")) == {"box": 0.05 * 0.75, "obj": 4 * 0.75, "cls": 0.5 * 0.75}
    assert gains_of(preset("yolov5n-seg", num_classes=8)) == {"box": 0.05, "seg": 0.05, "obj": 1.0, "cls": 0.05}


def test_published_training_defaults():
    recipe = preset("yolov5n")
    train, augment = recipe.train, recipe.augment

    assert (train.optimizer, train.lr0, train.lrf, train.momentum) == ("sgd", 0.01, 0.01, 0.937)
    assert (train.warmup_epochs, train.warmup_momentum, train.warmup_bias_lr) == (3.0, 0.8, 0.1)
    assert (train.weight_decay, train.nominal_batch, train.batch, train.patience) == (5e-4, 64, 16, 100)
    assert (augment.hsv_h, augment.hsv_s, augment.hsv_v, augment.translate, augment.scale) == (
        0.015,
        0.7,
        0.4,
        0.1,
        0.5,
    )
    assert (augment.mosaic, augment.mixup, augment.close_mosaic) == (1.0, 0.0, 0)
    assert (recipe.evaluation.iou, recipe.evaluation.conf, recipe.evaluation.max_det) == (0.6, 0.001, 300)
    assert (recipe.data.imgsz, preset("yolov5n6").data.imgsz, preset("yolov5n6", imgsz=640).data.imgsz) == (
        640,
        1280,
        640,
    )


@pytest.mark.parametrize("name", ["yolov5n", "yolov5n-seg", "yolov5-mobilenetv3"])
def test_exclusive_classes_reach_head_and_loss(name):
    recipe = preset(name, num_classes=3, exclusive=True)

    assert recipe.exclusive
    assert recipe.vocabulary(("a", "b", "c")).exclusive
    assert isinstance(recipe.criterion.rules["main"].terms["cls"].term, ExclusiveScores)


def test_segment_has_prototypes_of_the_scaled_width_without_transposed_convolution():
    assert preset("yolov5m-seg").model.head.masks == MaskConfig(count=32, hidden=192, upsample="nearest")
    assert preset("yolov5m").model.head.masks is None


@pytest.mark.parametrize("name", SMALLEST)
def test_one_step_gives_every_parameter_a_gradient(name):
    masks = "seg" in name
    levels = 4 if "6" in name else 3

    loss, without = step(preset(name, num_classes=3), labels(3, masks))

    assert without == []
    terms = {"box", "seg", "obj", "cls"} if masks else {"box", "obj", "cls"}
    assert set(loss.components) == {f"main{level or ''}/{term}" for level in range(levels) for term in terms}


def test_one_step_with_exclusive_classes_and_an_attribute():
    spec = AttributeSpec(name="colour", values=("red", "green"))
    recipe = preset("yolov5n", num_classes=3, exclusive=True, attributes=(spec,))
    targets = labels(3, attributes={"colour": torch.arange(16).view(2, 8) % 2})

    loss, without = step(recipe, targets)

    assert without == []
    assert {"main/colour", "main1/colour", "main2/colour"} <= set(loss.components)
    assert from_yaml(Recipe, to_yaml(recipe)) == recipe
    assert recipe.vocabulary(("a", "b", "c")).attributes == (spec,)


@pytest.mark.parametrize("kind", ["mobilenet_v3", "shufflenet_v2", "resnet", "hgnet"])
@pytest.mark.parametrize("name", ["yolov8n", "yolov5n"])
def test_any_backbone_goes_with_any_dense_head(name, kind):
    recipe = override(preset(name, num_classes=3), [f"model.backbone.kind={kind}"])

    _, without = step(recipe, labels(3))

    assert recipe.model.backbone.kind == kind
    # Task-aligned assignment leaves whole levels of the untrained box branches without a pair.
    assert [part for part in without if not part.startswith("head.") or name == "yolov5n"] == []
    assert from_yaml(Recipe, to_yaml(recipe)) == recipe


def test_a_backbone_that_does_not_go_with_a_preset_says_why():
    with pytest.raises(ConfigError, match=r"neck.widths: expected 1 to 3 levels .*backbone returns 3 maps\), got 4"):
        override(preset("yolov5n6", num_classes=3), ["model.backbone.kind=mobilenet_v3"]).model.build()
    with pytest.raises(ConfigError, match=r"model.backbone.rows: missing"):
        override(preset("yolov8n", num_classes=3), ["model.backbone.kind=table"])


def test_the_anchor_head_goes_on_the_layers_of_yolov8():
    other = preset("yolov5n", num_classes=3)
    recipe = override(preset("yolov8n", num_classes=3), ["model.head.kind=anchor_based"])
    assert (recipe.model.backbone.block, recipe.model.head) == ("c2f", other.model.head)

    _, without = step(replace(recipe, criterion=other.criterion), labels(3))

    assert without == []


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("yolov5n", {"keypoints": KeypointSpec(count=3)}, "keypoints belong to the task pose"),
        ("yolov5-mobilenetv3", {"keypoints": KeypointSpec(count=3)}, "keypoints belong to the task pose"),
        (
            "yolov5n",
            {"attributes": (AttributeSpec(name="box", values=("a", "b")),)},
            "the loss has a term of this name",
        ),
    ],
)
def test_what_the_family_cannot_do_is_refused(name, options, message):
    with pytest.raises(ConfigError, match=message):
        preset(name, **options)


def test_other_tasks_are_no_presets():
    with pytest.raises(ConfigError, match=r"yolov5n-pose: unknown preset; did you mean"):
        preset("yolov5n-pose")
