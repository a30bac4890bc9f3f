# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Counts and shapes of the published networks, from `architectures.json` here or in the folder BOXWRIGHT_GOLDEN."""

import json
import os
from pathlib import Path

import pytest
import torch
from torch import nn

from boxwright.models.backbones.csp import CSPConfig
from boxwright.models.detector import Detector, DetectorConfig
from boxwright.models.necks.pan import PANConfig
from boxwright.presets.yolov8 import yolov8_model

FOLDER = Path(os.environ.get("BOXWRIGHT_GOLDEN") or Path(__file__).parent)
FILE = FOLDER / "architectures.json"
PUBLISHED_NAMES = {"AnchorFree": "Detect"}  # our class name -> the table's

# Not presets, but nothing except data: one more level at the fine or at the coarse end.
VARIANTS = {
    "yolov8n-p2/detect": DetectorConfig(neck=PANConfig(widths=(32, 64, 128, 256))),
    "yolov8n-p6/detect": DetectorConfig(
        backbone=CSPConfig(widths=(16, 32, 64, 128, 192, 256), depths=(1, 2, 2, 1, 1)),
        neck=PANConfig(block="c2", widths=(64, 128, 192, 256)),
    ),
}
NAMES = [
    *(f"yolov8{size}/detect" for size in "nsmlx"),
    *(f"yolov8n/detect-nc{count}" for count in (1, 2, 3, 20)),
    *VARIANTS,
]


def config_of(name: str) -> DetectorConfig:
    if name in VARIANTS:
        return VARIANTS[name]
    family, _, variant = name.partition("/")
    return yolov8_model(family.removeprefix("yolov8"), int(variant.partition("-nc")[2] or 80))


@pytest.fixture(scope="module", params=NAMES)
def case(request):
    if not FILE.is_file():
        pytest.skip(f"{FILE}: no such file")
    with torch.device("meta"):
        model = config_of(request.param).build()
    return json.loads(FILE.read_text())["models"][request.param], model


def numel(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def count_macs(model: Detector, imgsz: int) -> int:
    """Multiply-accumulates of all convolutions and linear layers, plus the expectation over bins.

    The table counts that expectation as a frozen 1x1 convolution: bins x 4 sides x cells.
    """
    macs = 0

    def count(module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        nonlocal macs
        macs += output.numel() * module.weight[0].numel()

    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    handles = [part.register_forward_hook(count) for part in model.modules() if isinstance(part, kinds)]
    final = model.eval()(torch.zeros(1, 3, imgsz, imgsz, device="meta")).final
    for handle in handles:
        handle.remove()
    return macs + model.head.bins.numel() * 4 * final.box_raw.shape[1]


def test_counts_of_parameters_and_tensors(case):
    expected, model = case
    state = model.state_dict()
    layers = [type(part) for part in model.modules()]
    found = {
        "params": numel(model),
        "param_tensors": len(list(model.parameters())),
        "state_dict_keys": len(state),
        "state_dict_numel": sum(tensor.numel() for tensor in state.values()),
        "conv_layers": layers.count(nn.Conv2d) + 1,  # the table counts the frozen bins as a convolution
        "bn_layers": layers.count(nn.BatchNorm2d),
        "stride": list(model.strides),
    }
    assert found == {key: expected[key] for key in found}


def test_counts_after_folding(case):
    expected, model = case
    folded = model.fold()
    assert numel(folded) == expected["params_conv_bn_fused"]
    assert len(folded.state_dict()) == expected["state_dict_keys_fused"]


def test_parameters_of_every_layer(case):
    expected, model = case
    if "layers" not in expected:
        pytest.skip("the table has no layers for this row")
    found = []
    for index, part in enumerate(model.layers):
        name = type(part).__name__
        found.append((index, PUBLISHED_NAMES.get(name, name), numel(part)))
    assert found == [(index, block, count) for index, _source, block, count in expected["layers"]]


def test_multiply_accumulates(case):
    expected, model = case
    assert count_macs(model, expected["imgsz"]) == expected["macs_conv_linear"]


def test_output_shapes(case):
    expected, model = case
    for size, batch, wanted in ((expected["imgsz"], 1, "infer_out_2026"), (256, 2, "train_out_b2_2026")):
        shapes = expected[wanted][1] if wanted == "infer_out_2026" else expected[wanted]
        images = torch.zeros(batch, 3, size, size, device="meta")
        final = model(images).final
        assert list(final.box_raw.transpose(1, 2).shape) == shapes["boxes"]
        assert list(final.logits.transpose(1, 2).shape) == shapes["scores"]
        assert [list(x.shape) for x in model.neck(model.backbone(images))] == shapes["feats"]
