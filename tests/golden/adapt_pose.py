# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""YOLOv8-type keypoints in golden cases."""

import dataclasses
from typing import Any

import numpy as np
import torch
from tests.golden.common import COMPATIBLE, Run, predictions, targets_from_rows

from boxwright.losses.assign import TaskAligned
from boxwright.losses.criterion import Criterion, Rule, Weighted
from boxwright.losses.terms import BoxOverlap, DistanceBins, KeypointLocation, KeypointVisibility, SoftScores
from boxwright.structures import Outputs, Targets


def pose(case: dict[str, Any], inputs: dict[str, Any], dtype: torch.dtype) -> Run:
    config = case["config"]
    known = {"nc", "reg_max", "strides", "kpt_shape", "min_side"}
    assert set(config) <= known, f"options without a counterpart: {set(config) - known}"
    feats = [torch.from_numpy(feat).to(dtype).requires_grad_() for feat in inputs["feats"]]
    keypoints = torch.from_numpy(inputs["kpts"]).to(dtype).requires_grad_()
    preds = dataclasses.replace(
        predictions(feats, config), keypoints_raw=keypoints.transpose(1, 2).unflatten(2, config["kpt_shape"])
    )
    targets = with_keypoints(
        targets_from_rows(inputs, len(feats[0]), preds.image_size, dtype), inputs, preds.image_size
    )
    terms = {
        "box": Weighted(term=BoxOverlap(), gain=7.5),
        "pose": Weighted(term=KeypointLocation(), gain=12.0),
        "kobj": Weighted(term=KeypointVisibility(), gain=1.0),
        "cls": Weighted(term=SoftScores(), gain=0.5),
        "dfl": Weighted(term=DistanceBins(), gain=1.5),
    }
    options = {"min_side": float(config["min_side"])} if "min_side" in config else {}
    criterion = Criterion(rules={"main": Rule(assigner=TaskAligned(**options, **COMPATIBLE), terms=terms)})
    loss = criterion(Outputs(preds), criterion.prepare(targets, preds.grid))
    return Run(
        components={name.removeprefix("main/"): value for name, value in loss.components.items()},
        total=loss.total,
        leaves={**{f"feats{index}": feat for index, feat in enumerate(feats)}, "kpts": keypoints},
        assignments={"assign": loss.assignments["main"]},
    )


def with_keypoints(targets: Targets, inputs: dict[str, Any], size: tuple[int, int]) -> Targets:
    """The targets with normalised keypoints in pixels; those without a visibility are all visible."""
    rows = torch.from_numpy(inputs["keypoints"]).to(targets.boxes.dtype)
    height, width = size
    places = rows[..., :2] * rows.new_tensor((width, height))
    seen = rows[..., 2:] if rows.shape[-1] == 3 else torch.ones_like(rows[..., :1])
    rows = torch.cat((places, seen), dim=-1)
    padded = rows.new_zeros(*targets.labels.shape, *rows.shape[1:])
    for image in range(len(padded)):
        index = np.nonzero(inputs["batch_idx"] == image)[0]
        padded[image, : len(index)] = rows[index]
    return dataclasses.replace(targets, keypoints=padded)
