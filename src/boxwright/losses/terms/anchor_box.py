# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The box term of anchor-based heads, and the overlap in cells that it shares with the objectness target."""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from boxwright.config import component
from boxwright.kernels.anchor_ciou import SMALLEST, anchor_ciou
from boxwright.kernels.rows import planes_at, slot_of
from boxwright.ops.decode import Anchor
from boxwright.ops.overlap import OverlapName, paired_overlap
from boxwright.structures import Assignment, Predictions, Targets


@component
class AnchorOverlap:
    """One minus the overlap of each matched pair, in cells and by centre and size, weighted by the pair's weight.

    It differs from `BoxOverlap` in the epsilons only: centre sizes carry none.

    Source: CIoU, Zheng et al. 2020, arXiv:1911.08287; spec/losses E.1.
    """

    kind: Literal["anchor_overlap"] = "anchor_overlap"
    overlap: OverlapName = "ciou"
    scope: ClassVar[Literal["pair"]] = "pair"

    def __call__(self, preds: Predictions, targets: Targets, pairs: Assignment) -> Float[Tensor, " P"]:
        """Contribution of each pair."""
        missing = 1 - overlap_in_cells(preds, targets, pairs, self.overlap)
        return torch.where(pairs.valid, missing, torch.zeros_like(missing)) * pairs.share


def overlap_in_cells(
    preds: Predictions, targets: Targets, pairs: Assignment, overlap: OverlapName
) -> Float[Tensor, " P"]:
    """Overlap of each pair in cells, by centre and size, with gradient; computed once for all terms of a rule."""
    shared = preds.matched.shared if preds.matched is not None and preds.matched.pairs is pairs else {}
    name = f"overlap in cells: {overlap}"
    if name in shared:
        return shared[name]
    grid = preds.cells
    if overlap == "ciou" and isinstance(preds.decoder, Anchor) and grid.prior_wh is not None:
        raw, strides = preds.raw_at(pairs), grid.strides.index_select(0, pairs.anchor)
        priors = planes_at(grid.prior_wh, pairs.anchor) / strides
        wanted = _in_cells(planes_at(targets.boxes.flatten(0, 1), slot_of(pairs, targets)), preds, pairs)
        found = anchor_ciou(raw, priors.to(raw.dtype), wanted.to(raw.dtype))
    else:
        found = paired_overlap(*boxes_in_cells(preds, targets, pairs), overlap, box_format="cxcywh")
    if torch.is_grad_enabled():
        shared[name] = found
    return found


def boxes_in_cells(
    preds: Predictions, targets: Targets, pairs: Assignment
) -> tuple[Float[Tensor, "P 4"], Float[Tensor, "P 4"]]:
    """Predicted (with gradient) and true (cx, cy, w, h) in cells, relative to the corner of each pair's cell.

    Predictions that are not anchor-based are decoded to pixels first.
    """
    grid, raw = preds.cells, preds.raw_at(pairs)
    corners = targets.boxes.flatten(0, 1).index_select(0, slot_of(pairs, targets)).to(raw.dtype)
    wanted = _in_cells(corners.t(), preds, pairs).t()
    if not isinstance(preds.decoder, Anchor) or grid.prior_wh is None:
        return _in_cells(preds.boxes_at(pairs).t(), preds, pairs).t(), wanted
    strides = grid.strides[pairs.anchor].to(raw.dtype)
    matched = preds.decoder.in_cells(raw, grid.prior_wh[pairs.anchor].to(raw.dtype) / strides[:, None])
    centre, size = matched[:, :2], matched[:, 2:]
    return torch.cat((centre, size.clamp(min=SMALLEST)), dim=-1), wanted


def _in_cells(corners: Tensor, preds: Predictions, pairs: Assignment) -> Tensor:
    """Planes (4, P) of corner boxes, px, as centre and size in cells, relative to the corner of each pair's cell."""
    grid, low, high = preds.cells, corners[:2], corners[2:]
    strides = grid.strides.index_select(0, pairs.anchor).to(corners.dtype)
    middle = planes_at(grid.points, pairs.anchor).to(corners.dtype)  # of the cell
    centre = ((low + high) / 2 - middle) / strides + 0.5
    return torch.cat((centre, (high - low) / strides))
