# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""What the golden adapters share: the form of a run, and inputs of dense heads as Predictions and Targets."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from boxwright.ops.boxes import cxcywh_to_xyxy
from boxwright.ops.decode import Distance
from boxwright.ops.grid import make_grid
from boxwright.structures import Assignment, Predictions, Targets


@dataclass
class Run:
    """What a golden file compares: values by its names, tensors whose gradient it lists, pairs by its branch names."""

    components: Mapping[str, Tensor]
    total: Tensor
    leaves: Mapping[str, Tensor]
    assignments: Mapping[str, Assignment]
    extra: Mapping[str, Any] = field(default_factory=dict)  # what a record lists beside pairs, by the record's name


Adapter = Callable[[dict[str, Any], dict[str, Any], torch.dtype], Run]

# The position of spec/losses H that golden files were made in.
COMPATIBLE = {"zero_metric_positives": "lowest_index", "conflict_scope": "all", "validity": "sum"}


def predictions(feats: list[Tensor], config: dict[str, Any]) -> Predictions:
    """Raw maps (B, 4 R + C, H, W) of the levels as Predictions."""
    flat = torch.cat([feat.flatten(2) for feat in feats], dim=2).transpose(1, 2)
    raw = 4 * config["reg_max"]
    grid = make_grid([(feat.shape[2], feat.shape[3]) for feat in feats], config["strides"])
    return Predictions(flat[..., raw:], flat[..., :raw], Distance(num_bins=config["reg_max"]), grid)


def targets_from_rows(inputs: dict[str, Any], batch: int, size: tuple[int, int], dtype: torch.dtype) -> Targets:
    """Flat rows, possibly interleaved between images, to padded slots; a row of zeros is padding (spec/losses G.3)."""
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
