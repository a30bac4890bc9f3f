# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""YOLOv8-type oriented boxes in golden cases."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from tests.golden.adapt_dense import GAINS, HEAD, check_known, leaves_of, soft_scores
from tests.golden.common import COMPATIBLE, Run, predictions

from boxwright.losses.assign import TaskAligned
from boxwright.losses.criterion import Criterion, Rule, Weighted
from boxwright.losses.terms import Angle, BoxOverlap, BuiltInTerm, DistanceBins, DistanceL1
from boxwright.ops.decode import Oriented
from boxwright.structures import Assignment, Outputs, Targets

OPTIONS = {"topk", "topk2", "swapped_size_filter", "rotated_dfl_target", "cov_floor", "angle_gain"}


def obb(case: dict[str, Any], inputs: dict[str, Any], dtype: torch.dtype) -> Run:
    config = case["config"]
    check_known(config, HEAD | OPTIONS)
    feats, angle = leaves_of(inputs["feats"], dtype), leaves_of([inputs["angle"]], dtype)[0]
    preds = replace(predictions(feats, config), decoder=Oriented(num_bins=config["reg_max"]), angle=angle[:, 0])
    swapped = config.get("swapped_size_filter", True)
    targets = oriented_targets(inputs, len(angle), preds.image_size, dtype)
    rotated = config.get("rotated_dfl_target", False)
    terms: dict[str, BuiltInTerm] = {
        "box": BoxOverlap(overlap="probiou", cov_floor=config.get("cov_floor", 0.0)),
        "cls": soft_scores(config),
        "dfl": DistanceL1(rotated=rotated) if config.get("plain_l1") else DistanceBins(rotated=rotated),
    }
    gains = GAINS | config.get("gains", {})
    if "angle_gain" in config:
        terms["angle"], gains["angle"] = Angle(), config["angle_gain"]
    assigner = TaskAligned(
        topk=config.get("topk", 10),
        topk2=config.get("topk2"),
        min_side=float(config.get("min_side", 0)),
        overlap="probiou",
        smallest_side=2.0,
        swapped_size_filter=swapped,
        **COMPATIBLE,
    )
    weighted = {name: Weighted(term=term, gain=gains[name]) for name, term in terms.items()}
    criterion = Criterion(rules={"main": Rule(assigner=assigner, terms=weighted)})
    loss = criterion(Outputs(preds), criterion.prepare(targets, preds.grid))
    return Run(
        components={name.removeprefix("main/"): value for name, value in loss.components.items()},
        total=loss.total,
        leaves={f"feats{index}": feat for index, feat in enumerate(feats)} | {"angle": angle},
        assignments={"assign": _by_surviving_row(loss.assignments["main"], targets, preds.image_size, swapped)},
    )


def oriented_targets(inputs: dict[str, Any], batch: int, size: tuple[int, int], dtype: torch.dtype) -> Targets:
    """Flat rows (cx, cy, w, h normalised, radians) to padded slots."""
    rows = [np.nonzero(inputs["batch_idx"] == image)[0] for image in range(batch)]
    slots = max(map(len, rows))
    labels, valid = torch.zeros(batch, slots, dtype=torch.int64), torch.zeros(batch, slots, dtype=torch.bool)
    boxes = torch.zeros(batch, slots, 5, dtype=dtype)
    height, width = size
    for image, index in enumerate(rows):
        row = torch.from_numpy(inputs["bboxes"][index]).to(dtype)
        boxes[image, : len(index)] = row * row.new_tensor((width, height, width, height, 1))
        labels[image, : len(index)] = torch.from_numpy(inputs["cls"][index])
        valid[image, : len(index)] = True
    return Targets(labels, boxes, valid)


def _by_surviving_row(pairs: Assignment, targets: Targets, size: tuple[int, int], swapped: bool) -> Assignment:
    """Golden records number the rows that the size filter leaves."""
    height, width = size
    sides = targets.boxes[..., 2:4] / targets.boxes.new_tensor((width, height))
    kept = (sides * sides.new_tensor((height, width) if swapped else (width, height)) >= 2).all(dim=-1) & targets.valid
    number = (kept.long().cumsum(dim=1) - 1).clamp(min=0)
    return replace(pairs, target=number[pairs.image, pairs.target])
