# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Counts and shapes of the published RT-DETR networks, from `architectures.json` here or in BOXWRIGHT_GOLDEN."""

import copy
import json
import os
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn

from boxwright.models.detector import Detector, DetectorConfig
from boxwright.presets.rtdetr import rtdetr_model

FOLDER = Path(os.environ.get("BOXWRIGHT_GOLDEN") or Path(__file__).parent)
FILE = FOLDER / "architectures.json"
# Row -> our size. The original table's R101 has frozen norms, and its R50 a row with and a row without.
ORIGINAL = {
    "r18vd": "r18",
    "r34vd": "r34",
    "r50vd": "r50",
    "r50vd-m": "r50m",
    "r50vd-frozenbn": "r50",
    "r101vd": "r101",
}
FROZEN = ("r50vd-frozenbn", "r101vd")
V8_STYLE = ("l", "x", "resnet50", "resnet101")
PARTS = {"params_backbone": "backbone", "params_encoder": "neck", "params_decoder": "head"}
# The table's name -> ours, where it is another.
NAMES = {"DWConv": "Conv", "RTDETRDecoder": "Query"}
STAGES = ("Stem", "Sequential")  # ours of "ResNetLayer"


def config_of(row: str) -> DetectorConfig:
    config = rtdetr_model(ORIGINAL.get(row, row))
    return replace(config, backbone=replace(config.backbone, frozen_norm=True)) if row in FROZEN else config


@cache
def built(row: str) -> Detector:
    with torch.device("meta"):
        return config_of(row).build()


@pytest.fixture
def expected(request):
    if not FILE.is_file():
        pytest.skip(f"{FILE}: no such file")
    return json.loads(FILE.read_text())["models"][f"rtdetr-{request.getfixturevalue('row')}/detect"]


every_row = pytest.mark.parametrize("row", [*ORIGINAL, *V8_STYLE])


def numel(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@every_row
def test_counts_of_parameters_and_tensors(row, expected):
    model = built(row)
    state = model.state_dict()
    layers = [type(part) for part in model.modules()]
    found = {
        "params": numel(model),
        "param_tensors": len(list(model.parameters())),
        "state_dict_keys": len(state),
        "state_dict_numel": sum(tensor.numel() for tensor in state.values()),
        "conv_layers": layers.count(nn.Conv2d),
        "bn_layers": layers.count(nn.BatchNorm2d),
        **{key: numel(getattr(model, part)) for key, part in PARTS.items()},
    }
    assert {key: found[key] for key in found if key in expected} == {
        key: expected[key] for key in found if key in expected
    }
    assert model.strides[-len(expected["stride"]) :] == tuple(expected["stride"])


@pytest.mark.parametrize("row", ["l", "resnet50"])  # the rows that tell their layers
def test_parameters_of_every_layer(row, expected):
    model = built(row)
    found = [(type(part).__name__, numel(part)) for part in model.layers]
    wanted = [(NAMES.get(name, name), count) for _index, _source, name, count in expected["layers"]]
    for (our_name, our_count), (name, count) in zip(found, wanted, strict=True):
        assert our_count == count
        assert our_name in (STAGES if name == "ResNetLayer" else (name,))


@pytest.mark.parametrize("row", ["l", "resnet50"])
def test_counts_after_folding(row, expected):
    """We also fold the three input projections of the head, which the published code leaves as they are."""
    model = built(row)
    folded = model.fold()
    width = model.config.head.width
    assert numel(folded) == expected["params_conv_bn_fused"] - 3 * width  # a bias instead of a factor and a shift
    assert len(folded.state_dict()) == expected["state_dict_keys_fused"] - 3 * 4


@pytest.mark.parametrize("row", [row for row in (*ORIGINAL, *V8_STYLE) if row != "r50vd-frozenbn"])
def test_multiply_accumulates(row, expected):
    """The table leaves out what happens inside attention; the original asks the box head about every cell."""
    model = built(row)
    head = model.head
    macs = _unasked_boxes(model) if row in ORIGINAL else 0
    left_out = {model.neck.encode.attention.output, *(layer.attention.output for layer in head.decoder.layers)}
    macs += _count(model, left_out)
    assert macs == expected["macs_conv_linear"]


@pytest.mark.parametrize("row", ["r18vd", "r50vd-m", "l"])  # the last layer, one before it; each code base
def test_output_shapes(row, expected):
    model = built(row)
    images = torch.zeros(2, 3, 256, 320, device="meta")
    outputs = model.eval()(images)
    queries = min(300, sum((256 // stride) * (320 // stride) for stride in (8, 16, 32)))
    assert expected["imgsz"] == 640
    assert outputs.final.logits.shape == (2, queries, 80)
    assert outputs.final.box_raw.shape == (2, queries, 4)
    layers = model.config.head.layers
    if "train_out_b2_2026" in expected:
        assert [layers, 2, 300, 80] == expected["train_out_b2_2026"][1]
    assert [(preds.role, preds.layer) for preds in outputs.auxiliary] == [
        ("encoder", 0),
        *(("decoder", layer) for layer in range(layers) if layer != outputs.final.layer),
    ]
    assert outputs.final.layer == expected.get("config", {}).get("eval_idx", layers - 1)


def _count(model: Detector, left_out: set[nn.Module]) -> int:
    """Multiply-accumulates of the convolutions and linear layers that inference needs, at 640 px."""
    macs = 0

    def count(module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        nonlocal macs
        macs += output.numel() * module.weight[0].numel()

    names = {name for name, part in model.named_modules() if part in left_out}
    stripped = copy.deepcopy(model).without_auxiliary().eval()
    for name, part in stripped.named_modules():
        if isinstance(part, (nn.Conv2d, nn.Linear)) and name not in names:
            part.register_forward_hook(count)
    stripped(torch.zeros(1, 3, 640, 640, device="meta"))
    return macs


def _unasked_boxes(model: Detector) -> int:
    """Of the box head on all cells of 640 px but the 300 chosen ones."""
    cells = 80 * 80 + 40 * 40 + 20 * 20
    return (cells - 300) * sum(layer.weight.numel() for layer in model.head.proposal_box.layers)
