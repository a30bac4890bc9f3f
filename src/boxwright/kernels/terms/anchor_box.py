# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Overlap in cells of anchor-based boxes: CIoU in one sweep over planes, once for all terms of a rule."""

import torch
from jaxtyping import Float
from torch import Tensor

from boxwright.kernels.anchor_ciou import anchor_ciou
from boxwright.kernels.rows import planes_at, slot_of
from boxwright.losses.shared import shared_value
from boxwright.losses.terms.anchor_box import AnchorOverlap, boxes_in_cells
from boxwright.ops.decode import Anchor
from boxwright.ops.overlap import OverlapName, paired_overlap
from boxwright.structures import Assignment, Predictions, Targets


def anchor_overlap(term: AnchorOverlap, preds: Predictions, targets: Targets, pairs: Assignment) -> Float[Tensor, " P"]:
    """Contribution of each pair."""
    missing = 1 - overlap_in_cells(preds, targets, pairs, term.overlap)
    return torch.where(pairs.valid, missing, torch.zeros_like(missing)) * pairs.share


def overlap_in_cells(
    preds: Predictions, targets: Targets, pairs: Assignment, overlap: OverlapName
) -> Float[Tensor, " P"]:
    """Overlap of each pair in cells, by centre and size, with gradient; computed once for all terms of a rule."""
    return shared_value(
        preds,
        pairs,
        f"overlap in cells: {overlap}",
        lambda: _overlap(preds, targets, pairs, overlap),
        keep=torch.is_grad_enabled(),
    )


def _overlap(preds: Predictions, targets: Targets, pairs: Assignment, overlap: OverlapName) -> Tensor:
    grid = preds.cells
    if overlap != "ciou" or not isinstance(preds.decoder, Anchor) or grid.prior_wh is None:
        return paired_overlap(*boxes_in_cells(preds, targets, pairs), overlap, box_format="cxcywh")
    raw, strides = preds.raw_at(pairs), grid.strides.index_select(0, pairs.anchor)
    priors = planes_at(grid.prior_wh, pairs.anchor) / strides
    corners = planes_at(targets.boxes.flatten(0, 1), slot_of(pairs, targets))
    low, high, strides = corners[:2], corners[2:], strides.to(corners.dtype)
    middle = planes_at(grid.points, pairs.anchor).to(corners.dtype)  # of the cell
    wanted = torch.cat((((low + high) / 2 - middle) / strides + 0.5, (high - low) / strides))
    return anchor_ciou(raw, priors.to(raw.dtype), wanted.to(raw.dtype))
