# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""What the anchor-free families share: every smallest preset takes a step, and what a task adds."""

from dataclasses import replace

import pytest
import torch

from boxwright.errors import ConfigError
from boxwright.losses.image_level import ImageCriterion
from boxwright.ops.keypoints import COCO_SIGMAS
from boxwright.presets import preset
from boxwright.presets.coco_pose import COCO_KEYPOINTS
from boxwright.structures import ImageTargets, Targets
from boxwright.vocabulary import AttributeSpec, KeypointSpec

SMALLEST = [
    *("yolov8n", "yolov8n-seg", "yolov8n-pose", "yolov8n-obb"),
    *("yolo11n", "yolo11n-seg", "yolo11n-pose", "yolo11n-obb"),
    *("yolov10n", "yolo26n", "yolov5nu"),
]
END_TO_END = ["yolov10n", "yolo26n"]
SIDE = 96  # px
LOC = AttributeSpec(name="loc", values=("in", "out"))
ACTION = AttributeSpec(name="action", values=("run", "sit", "eat"), multi_label=True)


def labels(task: str) -> Targets:
    """Objects of every size, so that each level has a match; the second image has one less."""
    boxes = torch.tensor([[8.0, 8, 24, 28], [20, 24, 60, 64], [4, 4, 92, 90]]).repeat(2, 1, 1)
    valid = torch.tensor([[True, True, True], [True, True, False]])
    drawn = torch.zeros(2, SIDE // 4, SIDE // 4, dtype=torch.int32)
    drawn[:, 1:22, 1:22] = 3
    drawn[:, 6:16, 5:15] = 2
    drawn[:, 2:7, 2:6] = 1
    if task == "obb":
        sides = boxes[..., 2:] - boxes[..., :2]
        boxes = torch.cat((boxes[..., :2] + sides / 2, sides, torch.full((2, 3, 1), 0.3)), 2)
    points = torch.rand(2, 3, 17, 3, generator=torch.Generator().manual_seed(1)) * SIDE
    points[..., 2] = 2.0
    return Targets(
        labels=torch.tensor([[0, 2, 1], [1, 0, 0]]) % (1 if task == "pose" else 3),
        boxes=boxes * valid[..., None],
        valid=valid,
        instance_map=drawn if task == "segment" else None,
        keypoints=points if task == "pose" else None,
    )


def step(recipe, targets):
    torch.manual_seed(0)
    model = recipe.model.build()
    images = torch.rand(2, 3, SIDE, SIDE)
    loss = recipe.criterion(model(images), recipe.criterion.prepare(targets, model.grid((SIDE, SIDE))))
    loss.total.backward()
    return model, loss


@pytest.mark.parametrize("name", SMALLEST)
def test_one_step_gives_every_parameter_a_gradient(name):
    recipe = preset(name, num_classes=1 if name.endswith("pose") else 3)

    model, loss = step(recipe, labels(recipe.data.task))

    without = [key for key, value in model.named_parameters() if value.requires_grad and value.grad is None]
    assert not without
    assert torch.isfinite(loss.total)
    extra = {"segment": {"seg"}, "pose": {"pose", "kobj"}}.get(recipe.data.task, set())
    roles = ["one2many", "one2one"] if name in END_TO_END else ["main"]
    assert set(loss.components) == {f"{role}/{term}" for role in roles for term in {"box", "cls", "dfl"} | extra}
    assert all(value > 0 for value in loss.scalars().values())


@pytest.mark.parametrize("name", ["yolov8n-cls", "yolo11n-cls"])
def test_a_classifier_takes_a_step(name):
    torch.manual_seed(0)
    recipe = preset(name, num_classes=4)
    model = recipe.model.build()

    recipe.criterion(model(torch.rand(2, 3, 64, 64)), ImageTargets(torch.tensor([1, 3]))).total.backward()

    assert recipe.criterion == ImageCriterion()
    assert all(value.grad is not None for value in model.parameters())
    assert (recipe.data.task, recipe.data.imgsz, recipe.data.fit, recipe.exclusive) == ("classify", 224, "crop", True)


@pytest.mark.parametrize("name", ["yolov8n", "yolov10n"])
def test_attributes_are_learned_by_every_set_of_branches(name):
    recipe = preset(name, num_classes=3, attributes=(LOC, ACTION))
    targets = labels("detect")
    answers = {"loc": torch.tensor([[0, 1, -1], [1, 0, 0]]), "action": torch.ones(2, 3, 3)}

    model, loss = step(recipe, replace(targets, attributes=answers))

    sets = {key.rpartition("attribute_branches")[0] for key, _ in model.named_parameters() if "attribute" in key}
    assert sets == ({"head.", "head.one2many."} if name in END_TO_END else {"head."})
    assert not [key for key, value in model.named_parameters() if value.requires_grad and value.grad is None]
    roles = recipe.criterion.rules
    assert {f"{role}/{spec.name}" for role in roles for spec in (LOC, ACTION)} <= set(loss.components)
    assert {rule.terms["loc"].gain for rule in roles.values()} == {1.0}
    assert recipe.vocabulary(("a", "b", "c")).attributes == (LOC, ACTION)


def test_published_class_counts_sides_and_heads():
    found = {task: preset(f"yolov8n{task}") for task in ("", "-seg", "-pose", "-obb", "-cls")}

    assert [recipe.num_classes for recipe in found.values()] == [80, 80, 1, 15, 1000]
    assert [recipe.data.imgsz for recipe in found.values()] == [640, 640, 640, 640, 224]
    assert found["-seg"].model.head.masks.hidden == 64  # 256 times the width
    assert found["-obb"].model.head.oriented
    assert found["-pose"].model.head.keypoints == COCO_KEYPOINTS
    assert preset("yolov8n-obb", imgsz=1024).data.imgsz == 1024


def test_keypoints_of_the_dataset():
    own = KeypointSpec(count=2, dims=2, sigmas=(0.1, 0.2))
    recipe = preset("yolo11n-pose", keypoints=own)

    assert recipe.model.head.keypoints == own
    assert recipe.criterion.rules["main"].terms["pose"].term.sigmas == (0.1, 0.2)
    assert recipe.vocabulary(("thing",)).keypoints == own


def test_coco_keypoints():
    assert COCO_KEYPOINTS.count == len(COCO_SIGMAS)
    for index, name in enumerate(COCO_KEYPOINTS.names):
        other = COCO_KEYPOINTS.names[COCO_KEYPOINTS.flip[index]]
        assert other == name.replace("left", "R").replace("right", "left").replace("R", "right")
    bones = {tuple(sorted(COCO_KEYPOINTS.names[i] for i in pair)) for pair in COCO_KEYPOINTS.skeleton}
    assert len(bones) == 19
    assert {("left_elbow", "left_wrist"), ("left_ankle", "left_knee"), ("left_eye", "nose")} <= bones


@pytest.mark.parametrize(
    ("name", "asked", "message"),
    [
        ("yolov8n", {"keypoints": COCO_KEYPOINTS}, "^yolov8: keypoints belong to the task pose, got them for detect$"),
        (
            "yolo11n-cls",
            {"attributes": (LOC,)},
            "^yolo11: attributes belong to objects, and the task",
        ),
        ("yolov8n", {"attributes": (AttributeSpec(name="box", values=("x", "y")),)}, "^attributes.box: the loss has a"),
    ],
)
def test_what_a_task_has_no_use_for(name, asked, message):
    with pytest.raises(ConfigError, match=message):
        preset(name, **asked)


def test_exclusive_classes_reach_the_head():
    assert preset("yolov10n", exclusive=True).exclusive
    assert not preset("yolov10n").exclusive
