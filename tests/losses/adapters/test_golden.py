# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The adapters read the tensors of the golden vectors, which are those of other code bases, as our own tests do."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from tests.golden import inputs as golden_inputs
from tests.golden.common import COMPATIBLE

from boxwright.losses import (
    TaskAligned,
    from_detr_stacks,
    from_yolov5_maps,
    from_yolov8_maps,
    rtdetr,
    targets_from_rows,
    yolov5_detect,
    yolov8_detect,
)

GOLDEN = Path(golden_inputs.__file__).parent


def cases(file, *, without=()):
    every = json.loads((GOLDEN / file).read_text(encoding="utf-8"))["cases"]
    return [pytest.param(case, id=case["name"]) for case in every if not any(map(case["config"].get, without))]


def leaves(arrays):
    return [torch.from_numpy(array).double().requires_grad_() for array in arrays]


def check(case, total, tensors):
    expected = case["expected"]["total"]
    assert total.item() == pytest.approx(expected, rel=1e-6)
    total.backward()
    for name, tensor in tensors.items():
        wanted = case["grad_of_total"][name]
        assert tensor.grad.norm().item() == pytest.approx(wanted["l2"], rel=1e-6)
        for place, value in wanted["samples"]:
            assert tensor.grad.reshape(-1)[place].item() == pytest.approx(value, abs=1e-6 * wanted["l2"] + 1e-12)


@pytest.mark.parametrize("case", cases("detect_v8.json", without={"topk", "gains"}))
def test_yolov8_maps(case):
    config, inputs = case["config"], golden_inputs.BUILDERS[case["builder"]](case["params"])
    maps = leaves(inputs["feats"])

    outputs = from_yolov8_maps(maps, config["strides"], num_classes=config["nc"], num_bins=config["reg_max"])
    targets = targets_from_rows(
        torch.from_numpy(inputs["batch_idx"]), torch.from_numpy(inputs["cls"]),
        torch.from_numpy(inputs["bboxes"]).double(), batch=len(maps[0]), image_size=outputs.final.image_size,
        num_classes=config["nc"],
    )  # fmt: skip
    criterion = yolov8_detect()
    rule = dataclasses.replace(criterion.rules["main"], assigner=TaskAligned(**COMPATIBLE))
    total = dataclasses.replace(criterion, rules={"main": rule})(outputs, targets).total

    check(case, total, {f"feats{index}": part for index, part in enumerate(maps)})


@pytest.mark.parametrize(
    "case", cases("v5.json", without={"gains", "autobalance_level", "fl_gamma", "smoothing", "gr", "cls_pw", "obj_pw"})
)
def test_yolov5_maps(case):
    config, inputs = case["config"], golden_inputs.BUILDERS[case["builder"]](case["params"])
    maps, table = leaves(inputs["preds"]), torch.from_numpy(inputs["targets"]).double()
    strides = [8 * maps[0].shape[2] // part.shape[2] for part in maps]

    outputs = from_yolov5_maps(
        maps, [anchors.tolist() for anchors in inputs["anchors"]], strides, anchor_unit="cell", num_classes=config["nc"]
    )
    size = (8 * maps[0].shape[2], 8 * maps[0].shape[3])
    targets = targets_from_rows(table[:, 0], table[:, 1], table[:, 2:], batch=len(maps[0]), image_size=size)
    names = {"anchor_t": "ratio", "duplicates": "duplicates"}
    options = {name: config[key] for key, name in names.items() if key in config}
    total = yolov5_detect(**{"duplicates": "last"} | options)(outputs, targets).total

    check(case, total, {f"preds{index}": part for index, part in enumerate(maps)})


@pytest.mark.parametrize("case", cases("rtdetr.json", without={"gains", "class_term", "dn_groups", "vfl"}))
def test_detr_stacks(case):
    inputs = golden_inputs.BUILDERS[case["builder"]](case["params"])
    boxes, logits = leaves((inputs["boxes"], inputs["logits"]))
    size = tuple(case["params"]["imgsz"])

    outputs = from_detr_stacks(boxes, logits, image_size=size)
    targets = targets_from_rows(
        torch.from_numpy(inputs["batch_idx"]), torch.from_numpy(inputs["cls"]),
        torch.from_numpy(inputs["bboxes"]).double(), batch=boxes.shape[1], image_size=size,
    )  # fmt: skip

    check(case, rtdetr()(outputs, targets).total, {"boxes": boxes, "logits": logits})
