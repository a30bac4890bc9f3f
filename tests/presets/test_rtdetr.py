# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors

import copy
import io
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from boxwright.config import from_yaml, override, to_yaml
from boxwright.engine.optim import build_optimizer, choose_optimizer
from boxwright.engine.recipe import Recipe
from boxwright.errors import ConfigError
from boxwright.losses.query_recipes import rtdetr as rtdetr_criterion
from boxwright.models.backbones.resnet import ResNetConfig
from boxwright.models.detector import Detector
from boxwright.ops.denoising import Denoising
from boxwright.presets import PRESETS, preset
from boxwright.presets.rtdetr import NETWORKS, rtdetr, rtdetr_model
from boxwright.structures import Outputs, Targets
from boxwright.vocabulary import AttributeSpec, KeypointSpec

LOC = AttributeSpec(name="loc", values=("left", "right", "middle"))


def targets_of(batch: int = 2, **extras) -> Targets:
    return Targets(
        labels=torch.tensor([[0, 2], [1, 0]])[:batch],
        boxes=torch.tensor([[[4.0, 4, 40, 50], [20, 10, 90, 90]], [[30, 30, 60, 64], [0, 0, 0, 0]]])[:batch],
        valid=torch.tensor([[True, True], [True, False]])[:batch],
        **extras,
    )


def step(recipe: Recipe, model: Detector, targets: Targets, size: tuple[int, int] = (96, 128)):
    targets = recipe.criterion.prepare(targets, model.grid(size))
    outputs = model(torch.rand(len(targets.labels), 3, *size), targets)
    loss = recipe.criterion(outputs, targets)
    loss.total.backward()
    return loss


def box_head_insides(model: Detector) -> list[str]:
    """Layers of box heads whose last layer starts at zero, so that no gradient reaches them at first."""
    return [
        name
        for name, _ in model.named_parameters()
        if ("proposal_box" in name or "decoder.boxes" in name) and "layers.2" not in name
    ]


def test_names():
    assert [name for name in PRESETS if name.startswith("rtdetr")] == [f"rtdetr-{size}" for size in NETWORKS]


@pytest.mark.parametrize("size", NETWORKS)
def test_a_recipe_survives_yaml_and_is_called_as_its_preset(size):
    recipe = preset(f"rtdetr-{size}", num_classes=7, imgsz=320, attributes=(LOC,))

    assert recipe.name == f"rtdetr-{size}"
    assert (recipe.num_classes, recipe.data.imgsz, recipe.data.fit) == (7, 320, "stretch")
    assert from_yaml(Recipe, to_yaml(recipe)) == recipe


def test_training_has_the_published_numbers():
    recipe = rtdetr("r18")
    train = recipe.train

    assert (train.optimizer, train.lr0, train.lrf, train.weight_decay) == ("adamw", 1e-4, 1.0, 1e-4)
    assert (train.clip_norm, train.ema_decay, train.ema_warmup, train.epochs) == (0.1, 0.9999, 2000, 72)
    assert (train.batch, train.nominal_batch) == (16, 16)
    assert (recipe.augment.mosaic, recipe.augment.mixup, recipe.augment.fliplr) == (0, 0, 0.5)
    assert recipe.evaluation.max_det == 300
    assert recipe.criterion == rtdetr_criterion(detach_weight=True)
    assert recipe.model.head.denoising == Denoising()
    assert [rtdetr(size).train.backbone_lr for size in ("r18", "r101")] == [0.1, 0.01]


def test_rates_of_backbone_and_rest():
    model = rtdetr_model("r18", 3).build()
    choice = choose_optimizer(rtdetr("r18").train, images=100, num_classes=3)
    optimizer = build_optimizer(model, choice, 1e-4, 0.1)

    inside = {id(parameter) for parameter in model.backbone.parameters()}
    for index, group in enumerate(optimizer.param_groups):
        assert {id(parameter) in inside for parameter in group["params"]} <= {index >= 3}
    held = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(held) == sorted(id(parameter) for parameter in model.parameters())


def test_one_step_gives_every_parameter_a_gradient():
    torch.manual_seed(0)
    recipe = preset("rtdetr-r18", num_classes=3)
    model = recipe.model.build()

    loss = step(recipe, model, targets_of())

    layers = ["encoder", "decoder", "decoder1", "denoise", "denoise1", "denoise2", "decoder2"]
    assert list(loss.components) == [f"{layer}/{term}" for layer in layers for term in ("class", "bbox", "giou")]
    grads = {name: value.grad for name, value in model.named_parameters()}
    assert [name for name, grad in grads.items() if grad is None] == []
    assert [name for name, grad in grads.items() if not grad.abs().sum() > 0] == box_head_insides(model)
    # Every pair of the fullest image counts in each of the groups of its denoising queries.
    assert len(loss.assignments["denoise"].image) == 3 * 50
    assert len(loss.assignments["decoder2"].image) == 3


def test_a_batch_without_objects_teaches_background_only():
    torch.manual_seed(0)
    recipe = preset("rtdetr-r18", num_classes=3)
    model = recipe.model.build()
    nothing = Targets(torch.zeros(2, 0, dtype=torch.int64), torch.zeros(2, 0, 4), torch.zeros(2, 0, dtype=torch.bool))

    loss = step(recipe, model, nothing)

    values = {name: value.item() for name, value in loss.components.items()}
    assert all(value == 0 for name, value in values.items() if "denoise" in name or not name.endswith("class"))
    assert all(values[f"{layer}/class"] > 0 for layer in ("encoder", "decoder", "decoder1", "decoder2"))
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert model.head.label_embedding.weight.grad.abs().sum() == 0


def test_attributes_are_learned_in_every_decoder_layer():
    torch.manual_seed(0)
    recipe = preset("rtdetr-r18", num_classes=3, attributes=(LOC,))
    model = recipe.model.build()

    loss = step(recipe, model, targets_of(attributes={"loc": torch.tensor([[0, 2], [-1, 0]])}))

    values = {name: value.item() for name, value in loss.components.items() if name.endswith("/loc")}
    assert values.pop("encoder/loc") == 0
    assert list(values) == [f"{role}{layer}/loc" for layer in ("", "1") for role in ("decoder",)] + [
        f"denoise{layer}/loc" for layer in ("", "1", "2")
    ] + ["decoder2/loc"]
    assert all(value > 0 for value in values.values())
    assert all(head.weight.grad.abs().sum() > 0 for head in model.head.decoder.attributes)


def test_loss_falls():
    torch.manual_seed(0)
    recipe = override(
        preset("rtdetr-r18", num_classes=3),
        ["model.head.denoising.budget=8", "model.head.layers=2", "model.head.queries=30"],
    )
    model, targets = recipe.model.build(), recipe.criterion.prepare(targets_of(), None)
    images = torch.rand(2, 3, 64, 96)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    losses = []
    for _ in range(8):
        loss = recipe.criterion(model(images, targets), targets).total
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()

    assert losses[-1] < 0.9 * losses[0]


class Raw(nn.Module):
    """Logits and boxes as a plain tuple, as exporters want them."""

    def __init__(self, model: Detector) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        maps = self.model.neck(self.model.backbone(images))
        preds = self.model.head(maps, (64, 96)).detection  # a tracer gives sizes that are no plain integers
        return preds.logits, preds.box_raw


@pytest.fixture(scope="module")
def trained() -> Detector:
    """A small model whose norms are not fresh and whose boxes move."""
    torch.manual_seed(0)
    recipe = override(preset("rtdetr-r18", num_classes=3), ["model.head.layers=2", "model.head.queries=10"])
    model = recipe.model.build().eval()
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 1.5)
    for box in (model.head.proposal_box, *model.head.decoder.boxes):
        nn.init.normal_(box.layers[-1].weight, std=0.05)
    nn.init.normal_(model.head.proposal_class.weight)  # scores far apart: equal ones may change places
    return model


def test_folding_keeps_the_outputs(trained):
    images = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        expected, found = trained(images).final, trained.fold(auxiliary=False)(images)

    assert found.auxiliary == ()
    torch.testing.assert_close(found.final.logits, expected.logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.final.box_raw, expected.box_raw, rtol=1e-4, atol=1e-5)


def test_traces_and_exports_to_onnx_for_any_batch(trained):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    folded, example, other = Raw(trained.fold(auxiliary=False)), torch.rand(1, 3, 64, 96), torch.rand(2, 3, 64, 96)
    file = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the tracer warns of every Python number
        traced = torch.jit.trace(folded, example, check_trace=False)
        torch.onnx.export(
            copy.deepcopy(folded),
            (example,),
            file,
            dynamo=False,
            opset_version=17,
            input_names=["images"],
            output_names=["logits", "boxes"],
            dynamic_axes={name: {0: "batch"} for name in ("images", "logits", "boxes")},
        )
        wanted = [folded(images) for images in (example, other)]
        found = [traced(images) for images in (example, other)]
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])

    for images, expected, again in zip((example, other), wanted, found, strict=True):
        exported = session.run(None, {"images": images.numpy()})
        for torch_value, traced_value, onnx_value in zip(expected, again, exported, strict=True):
            torch.testing.assert_close(traced_value, torch_value, rtol=0, atol=0)
            assert np.abs(onnx_value - torch_value.numpy()).max() < 1e-4


def test_frozen_parts_by_override():
    recipe = override(preset("rtdetr-r50"), ["model.backbone.frozen_norm=true", "model.backbone.frozen_stem=true"])

    assert recipe.model.backbone == ResNetConfig(depth=50, frozen_norm=True, frozen_stem=True)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"exclusive": True}, "rtdetr: its class loss scores every class apart"),
        ({"task": "segment"}, "rtdetr: expected one of the tasks detect, got segment"),
        ({"size": "r20"}, "rtdetr: expected one of the sizes r18, r34, .* got 'r20'"),
        ({"keypoints": KeypointSpec(count=3)}, "keypoints belong to the task pose"),
        ({"attributes": (AttributeSpec(name="giou", values=("a", "b")),)}, "attributes.giou: the loss has a term"),
    ],
)
def test_what_the_family_cannot_do(asked, message):
    with pytest.raises(ConfigError, match=message):
        rtdetr(**{"size": "r18", **asked})


def test_final_of_the_medium_r50_is_the_third_layer():
    with torch.device("meta"):
        model = rtdetr_model("r50m", 3).build()
        outputs: Outputs = model(torch.zeros(1, 3, 64, 64))

    assert (outputs.final.label, outputs.final.end_to_end) == ("decoder2", True)
    assert [preds.label for preds in outputs.auxiliary] == [
        "encoder",
        "decoder",
        "decoder1",
        "decoder3",
        "decoder4",
        "decoder5",
    ]
