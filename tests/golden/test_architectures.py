# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Counts and shapes of the published anchor-free networks and classifiers.

The numbers are in `architectures.json` here, or in the folder BOXWRIGHT_GOLDEN.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from boxwright.models.backbones.csp import CSPConfig
from boxwright.models.classifier import ClassifierConfig
from boxwright.models.detector import DetectorConfig
from boxwright.models.necks.pan import PANConfig
from boxwright.models.network import Network
from boxwright.presets import preset
from boxwright.structures import ImageOutputs
from boxwright.vocabulary import TASKS as FACTS
from boxwright.vocabulary import KeypointSpec

FOLDER = Path(os.environ.get("BOXWRIGHT_GOLDEN") or Path(__file__).parent)
FILE = FOLDER / "architectures.json"
HEADS = {"detect": "Detect", "segment": "Segment", "pose": "Pose", "obb": "OBB", "classify": "Classify"}
CLASSES = {"detect": 80, "segment": 80, "pose": 1, "obb": 80, "classify": 1000}  # of rows that name none
TASKS = tuple(HEADS)

# Not presets, but nothing except data: one more level at the fine or at the coarse end.
VARIANTS = {
    "yolov8n-p2/detect": DetectorConfig(neck=PANConfig(widths=(32, 64, 128, 256))),
    "yolov8n-p6/detect": DetectorConfig(
        backbone=CSPConfig(widths=(16, 32, 64, 128, 192, 256), depths=(1, 2, 2, 1, 1)),
        neck=PANConfig(block="c2", widths=(64, 128, 192, 256)),
    ),
}
NAMES = [
    *(f"yolov8{size}/{task}" for size in "nsmlx" for task in TASKS),
    *(f"yolov8n/detect-nc{count}" for count in (1, 2, 3, 20)),
    *("yolov8n/classify-nc10", "yolov8n/obb-nc15", "yolov8n/segment-nc1", "yolov8n/pose-kpt5x2"),
    *VARIANTS,
    *(f"yolov5{size}u/detect" for size in "nsmlx"),
    *(f"yolov10{size}/detect" for size in "nsmblx"),
    *(f"yolo11{size}/{task}" for size in "nsmlx" for task in TASKS),
    *(f"yolo26{size}/detect" for size in "nsmlx"),
]


def config_of(name: str) -> DetectorConfig | ClassifierConfig:
    if name in VARIANTS:
        return VARIANTS[name]
    model, _, what = name.partition("/")
    task, _, variant = what.partition("-")
    classes = 80 if (model[:6], task) == ("yolo11", "pose") else CLASSES[task]
    if variant.startswith("nc"):
        classes = int(variant.removeprefix("nc"))
    keypoints = KeypointSpec(count=5, dims=2) if variant == "kpt5x2" else None
    return preset(model + FACTS[task].suffix, num_classes=classes, keypoints=keypoints).model


@pytest.fixture(scope="module", params=NAMES)
def case(request):
    if not FILE.is_file():
        pytest.skip(f"{FILE}: no such file")
    with torch.device("meta"):
        model = config_of(request.param).build()
    return request.param, json.loads(FILE.read_text())["models"][request.param], model


def numel(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def bins_of(model: Network) -> int:
    return model.head.bins.numel() if hasattr(model.head, "bins") else 0


def run_on(model: Network, batch: int, side: int) -> tuple[Any, list[list[int]], int]:
    """Outputs for empty images, shapes of the maps the head sees, and multiply-accumulates.

    Those of convolutions and linear layers, plus the expectation over bins, which the table counts as one frozen 1x1
    convolution: bins x 4 sides x cells, once for every model.
    """
    macs, maps = 0, []

    def count(module: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        nonlocal macs
        transposed = isinstance(module, nn.ConvTranspose2d)  # its kernel is laid over every input
        macs += (inputs[0] if transposed else output).numel() * module.weight[0].numel()

    def see(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
        maps.extend(list(x.shape) for x in inputs[0])

    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    handles = [part.register_forward_hook(count) for part in model.modules() if isinstance(part, kinds)]
    handles.append(model.head.register_forward_pre_hook(see))
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(nn.BatchNorm2d, "forward", lambda _norm, x: x)  # most of the time, and no shape depends on it
        outputs = model(torch.zeros(batch, 3, side, side, device="meta"))
    for handle in handles:
        handle.remove()
    bins = bins_of(model)
    return outputs, maps, macs + (bins * 4 * outputs.final.box_raw[0, :, 0].numel() * batch if bins else 0)


def test_counts_of_parameters_and_tensors(case):
    name, expected, model = case
    state = model.state_dict()
    layers = [type(part) for part in model.modules()]
    found = {
        "params": numel(model),
        "param_tensors": len(list(model.parameters())),
        "state_dict_keys": len(state),
        "state_dict_numel": sum(tensor.numel() for tensor in state.values()),
        "conv_layers": layers.count(nn.Conv2d) + bool(bins_of(model)),  # the table counts the frozen bins as one
        "bn_layers": layers.count(nn.BatchNorm2d),
        "stride": list(model.strides),
    }
    if "layers" in expected:  # some rows have none
        head = "v10Detect" if name.startswith("yolov10") else HEADS[name.partition("/")[2].partition("-")[0]]
        names = [*(type(part).__name__ for part in model.layers[:-1]), head]
        found["layers"] = [[index, names[index], numel(part)] for index, part in enumerate(model.layers)]
        expected = {
            **expected,
            "layers": [[index, block, count] for index, _source, block, count in expected["layers"]],
        }
    assert found == {key: expected[key] for key in found}


def test_counts_after_folding(case):
    _name, expected, model = case
    checked = 0
    for auxiliary, params, keys in (
        (True, "params_conv_bn_fused", "state_dict_keys_fused"),
        (False, "params_fused_e2e_only", "state_dict_keys_fused_e2e_only"),
    ):
        if expected.get(params) is not None:
            folded = model.fold(auxiliary=auxiliary)
            assert numel(folded) == expected[params]
            assert len(folded.state_dict()) == expected[keys]
            assert not any(isinstance(part, nn.BatchNorm2d) for part in folded.modules())
            checked += 1
    assert checked


def test_multiply_accumulates_and_output_shapes(case):
    _name, expected, model = case
    alone = expected["infer_out_2026"][1]
    for side, batch, shapes in ((expected["imgsz"], 1, alone), (256, 2, expected["train_out_b2_2026"])):
        outputs, maps, macs = run_on(model, batch, side)
        if batch == 1:
            assert macs == expected["macs_conv_linear"]
        if isinstance(outputs, ImageOutputs):
            assert list(outputs.logits.shape) == shapes
            continue
        every = (outputs.final, *outputs.auxiliary)
        for preds in every:
            of = shapes[preds.role] if len(every) > 1 else shapes
            assert {**shapes_of(preds), "feats": maps} == of


def shapes_of(preds) -> dict[str, list[int]]:
    """By the table's names; candidates are its last axis."""
    found = {"boxes": preds.box_raw, "scores": preds.logits, "mask_coefficient": preds.mask_coefs}
    if preds.keypoints_raw is not None:
        found["kpts"] = preds.keypoints_raw.flatten(2)
    if preds.angle is not None:
        found["angle"] = preds.angle.unsqueeze(2)
    shapes = {name: list(x.transpose(1, 2).shape) for name, x in found.items() if x is not None}
    return shapes if preds.prototypes is None else {**shapes, "proto": list(preds.prototypes.shape)}
