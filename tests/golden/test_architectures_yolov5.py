# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Counts and shapes of the published anchor-based networks, those on light backbones included."""

import json
from math import prod

import pytest
import torch
from tests.golden.counting import FILE, counts_of, numel, run_counted
from torch import nn

from boxwright.models.backbones.chain import Chain
from boxwright.models.backbones.mobilenet import MobileNetV3Config
from boxwright.models.blocks import Focus
from boxwright.presets import preset

SEGMENT = [f"yolov5{size}/segment" for size in "nsmlx"]
LIGHT = {
    "yolov5-shufflenetv2/detect": "yolov5-shufflenetv2-published",
    "yolov5-shufflenetv2-stem/detect": "yolov5-shufflenetv2-published-stem",
    "yolov5-shufflenetv2-focus/detect": "yolov5-shufflenetv2-published-focus",
    "yolov5-mobilenetv3small/detect": "yolov5-mobilenetv3-published",
    "yolov5-mobilenetv3small-stem/detect": "yolov5-mobilenetv3-published-stem",
    "project-shufflenetv2-1.0x-yolov5/detect": "yolov5-shufflenetv2",
    "project-mobilenetv3small-yolov5/detect": "yolov5-mobilenetv3",
}
NAMES = [
    *(f"yolov5{size}/detect" for size in "nsmlx"),
    *SEGMENT,
    *(f"yolov5{size}6/detect" for size in "nsmlx"),
    *("yolov5s/detect-nc1", "yolov5n/detect-nc20", "yolov5s/detect-nc3"),
    *(f"yolov5{size}-r5.0/detect" for size in "smlx"),
    *LIGHT,
]
PUBLISHED_NAMES = {
    "AnchorBased": "Detect",
    "ShuffleUnit": "ShuffleNetV2_InvertedResidual",
    "InvertedResidual": "MobileNetV3_InvertedResidual",
    "PoolStem": "conv_bn_relu_maxpool",
    "PeleeStem": "StemBlock",
}


def preset_of(row: str):
    if row in LIGHT:
        return preset(LIGHT[row])
    model, _, what = row.partition("/")
    task, _, variant = what.partition("-nc")
    name = model.removesuffix(".0") + {"detect": "", "segment": "-seg"}[task]
    return preset(name, num_classes=int(variant or 80))


@pytest.fixture(scope="module", params=NAMES)
def case(request):
    if not FILE.is_file():
        pytest.skip(f"{FILE}: no such file")
    with torch.device("meta"):
        model = preset_of(request.param).model.build()
    return request.param, json.loads(FILE.read_text())["models"][request.param], model


def test_counts_of_parameters_and_tensors(case):
    _, expected, model = case
    found = counts_of(model)
    known = [key for key in found if key in expected]
    assert "params" in known
    assert {key: found[key] for key in known} == {key: expected[key] for key in known}


def test_counts_after_folding(case):
    """The table leaves the batch norms of light backbones' own layers alone; ours are folded with the others.

    Each takes 2 parameters per channel and 5 tensors with it, and leaves 1 parameter per channel and 1 tensor.
    """
    _, expected, model = case
    if expected.get("params_conv_bn_fused") is None:
        pytest.skip("the table has no folded counts for this row")
    kept = _norms_the_table_keeps(model) if type(model.backbone) is Chain else []
    folded = model.fold()

    assert not any(isinstance(part, nn.BatchNorm2d) for part in folded.modules())
    assert numel(folded) == expected["params_conv_bn_fused"] - sum(kept)
    assert len(folded.state_dict()) == expected["state_dict_keys_fused"] - 4 * len(kept)


def _norms_the_table_keeps(model) -> list[int]:
    """Channels of the batch norms of a light backbone that do not stand in a `Conv` of the published code."""
    own = [part for part in model.backbone.layers if type(part).__name__ not in ("PeleeStem", "Focus")]
    return [part.num_features for layer in own for part in layer.modules() if isinstance(part, nn.BatchNorm2d)]


def test_parameters_of_every_layer(case):
    row, expected, model = case
    if "layers" not in expected:
        pytest.skip("the table has no layers for this row")
    names = [PUBLISHED_NAMES.get(type(part).__name__, type(part).__name__) for part in model.layers]
    if isinstance(model.config.backbone, MobileNetV3Config) and names[0] == "Conv":
        names[0] = "conv_bn_hswish"
    found = [(index, name, numel(part)) for index, (name, part) in enumerate(zip(names, model.layers, strict=True))]
    assert found == [(index, block, count) for index, _source, block, count in expected["layers"]], row


def shapes_of(model, batch: int, side: int):
    """The published maps (B, anchors, rows, columns, n), all rows, the prototypes, and multiply-accumulates."""
    outputs, macs = run_counted(model, batch, side)
    maps = []
    for preds in (*outputs.auxiliary, outputs.final):
        (shape,) = preds.grid.shapes
        maps.append(list(preds.table.unflatten(1, (len(preds.grid.level_priors[0]), *shape)).shape))
    found = outputs.detection
    prototypes = None if found.prototypes is None else list(found.prototypes.shape)
    return maps, list(found.table.shape), prototypes, macs


def test_output_shapes_and_multiply_accumulates(case):
    row, expected, model = case
    maps, rows, prototypes, macs = shapes_of(model, 1, expected.get("imgsz", 640))
    small, _, small_prototypes, _ = shapes_of(model, 2, 256)
    assert macs == expected.get("macs_conv_linear", macs)  # release 5.0 has none
    if "infer_out" not in expected:
        assert rows == expected.get("eval_out", [1, 25200, 85])
        assert sum(prod(of[1:4]) for of in maps) == rows[1]
    elif row in SEGMENT:
        assert [rows, prototypes, maps] == expected["infer_out"]
        assert [small, small_prototypes] == expected["train_out_b2_256"]
    else:
        assert [rows, maps] == expected["infer_out"]
        assert small == expected["train_out_b2_256"]


@pytest.mark.parametrize("row", [row for row in LIGHT if row.startswith("project")])
def test_backbones_of_the_papers_have_their_published_size(row):
    if not FILE.is_file():
        pytest.skip(f"{FILE}: no such file")
    expected = json.loads(FILE.read_text())["models"][row]
    with torch.device("meta"):
        model = preset_of(row).model.build()
    assert numel(model.backbone) == expected["params_backbone"]
    assert numel(model.neck) + numel(model.head) == expected["params_neck_head"]


def test_spring_2021_begins_with_neighbours_and_ends_with_a_block():
    with torch.device("meta"):
        layers = preset("yolov5s-r5").model.build().layers
    assert isinstance(layers[0], Focus)
    assert [type(part).__name__ for part in layers[7:11]] == ["Conv", "SPP", "C3", "Conv"]
    assert not any(unit.add for unit in layers[9].units)
