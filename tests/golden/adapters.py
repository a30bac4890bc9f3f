# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""From a golden case to a run of our criterion. A new criterion adds one function and its line in `ADAPTERS`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from boxwright.losses.assign import TaskAligned
from boxwright.losses.criterion import Criterion, Rule, Weighted
from boxwright.losses.terms import BoxOverlap, DistanceBins, SoftScores
from boxwright.ops.boxes import cxcywh_to_xyxy
from boxwright.ops.decode import Distance
from boxwright.ops.grid import make_grid
from boxwright.structures import Assignment, Outputs, Predictions, Targets


@dataclass
class Run:
    """What a golden file compares: values by its names, tensors whose gradient it lists, pairs by its branch names."""

    components: Mapping[str, Tensor]
    total: Tensor
    leaves: Mapping[str, Tensor]
    assignments: Mapping[str, Assignment]


Adapter = Callable[[dict[str, Any], dict[str, Any], torch.dtype], Run]

# The position of spec section H that golden files were made in.
COMPATIBLE = {"zero_metric_positives": "lowest_index", "conflict_scope": "all", "validity": "sum"}


def detect_v8(case: dict[str, Any], inputs: dict[str, Any], dtype: torch.dtype) -> Run:
    config = case["config"]
    known = {"nc", "reg_max", "strides", "topk", "gains"}
    assert set(config) <= known, f"options without a counterpart: {set(config) - known}"
    feats = [torch.from_numpy(feat).to(dtype).requires_grad_() for feat in inputs["feats"]]
    preds = predictions(feats, config)
    targets = targets_from_rows(inputs, len(feats[0]), preds.image_size, dtype)
    gains = {"box": 7.5, "cls": 0.5, "dfl": 1.5} | config.get("gains", {})
    terms = {"box": BoxOverlap(), "cls": SoftScores(), "dfl": DistanceBins()}
    rule = Rule(
        assigner=TaskAligned(topk=config.get("topk", 10), **COMPATIBLE),
        terms={name: Weighted(term=term, gain=gains[name]) for name, term in terms.items()},
    )
    criterion = Criterion(rules={"main": rule})
    loss = criterion(Outputs(preds), criterion.prepare(targets, preds.grid))
    return Run(
        components={name.removeprefix("main/"): value for name, value in loss.components.items()},
        total=loss.total,
        leaves={f"feats{index}": feat for index, feat in enumerate(feats)},
        assignments={"assign": loss.assignments["main"]},
    )


ADAPTERS: dict[str, Adapter] = {"detect_v8": detect_v8}


def predictions(feats: list[Tensor], config: dict[str, Any]) -> Predictions:
    """Raw maps (B, 4 R + C, H, W) of the levels as Predictions."""
    flat = torch.cat([feat.flatten(2) for feat in feats], dim=2).transpose(1, 2)
    raw = 4 * config["reg_max"]
    grid = make_grid([(feat.shape[2], feat.shape[3]) for feat in feats], config["strides"])
    return Predictions(flat[..., raw:], flat[..., :raw], Distance(num_bins=config["reg_max"]), grid)


def targets_from_rows(inputs: dict[str, Any], batch: int, size: tuple[int, int], dtype: torch.dtype) -> Targets:
    """Flat rows, possibly interleaved between images, to padded slots; a row of zeros is padding (spec G.3)."""
    rows = [np.nonzero(inputs["batch_idx"] == image)[0] for image in range(batch)]
    slots = max(map(len, rows))
    labels = torch.zeros(batch, slots, dtype=torch.int64)
    boxes = torch.zeros(batch, slots, 4, dtype=dtype)
    valid = torch.zeros(batch, slots, dtype=torch.bool)
    height, width = size
    for image, index in enumerate(rows):
        count = len(index)
        labels[image, :count] = torch.from_numpy(inputs["cls"][index])
        normalised = torch.from_numpy(inputs["bboxes"][index]).to(dtype)
        boxes[image, :count] = cxcywh_to_xyxy(normalised * normalised.new_tensor((width, height, width, height)))
        valid[image, :count] = normalised.ne(0).any(dim=1)
    return Targets(labels, boxes, valid)
