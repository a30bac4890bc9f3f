# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The box term of anchor-based heads, and the overlap in cells that it shares with the objectness target."""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from boxwright.config import component
from boxwright.losses.terms.base import Divisor, Scope
from boxwright.ops.boxes import xyxy_to_cxcywh
from boxwright.ops.decode import Anchor
from boxwright.ops.overlap import SMALLEST, OverlapName, paired_overlap
from boxwright.structures import Assignment, Predictions, Targets


@component
class AnchorOverlap:
    """One minus the overlap of each matched pair, in cells and by centre and size, weighted by the pair's weight.

    It differs from `BoxOverlap` in the epsilons only: centre sizes carry none.

    Source: CIoU, Zheng et al. 2020, arXiv:1911.08287; spec/losses E.1.
    """

    kind: Literal["anchor_overlap"] = "anchor_overlap"
    overlap: OverlapName = "ciou"
    scope: ClassVar[Scope] = "pair"
    divides_by: ClassVar[Divisor] = "assignment"

    def __call__(self, preds: Predictions, targets: Targets, pairs: Assignment) -> Float[Tensor, " P"]:
        """Contribution of each pair."""
        missing = 1 - overlap_in_cells(preds, targets, pairs, self.overlap)
        return torch.where(pairs.valid, missing, torch.zeros_like(missing)) * pairs.share


def overlap_in_cells(
    preds: Predictions, targets: Targets, pairs: Assignment, overlap: OverlapName
) -> Float[Tensor, " P"]:
    """Overlap of each pair in cells, by centre and size, with gradient."""
    return paired_overlap(*boxes_in_cells(preds, targets, pairs), overlap, box_format="cxcywh")


def boxes_in_cells(
    preds: Predictions, targets: Targets, pairs: Assignment
) -> tuple[Float[Tensor, "P 4"], Float[Tensor, "P 4"]]:
    """Predicted (with gradient) and true (cx, cy, w, h) in cells, relative to the corner of each pair's cell.

    Predictions that are not anchor-based are decoded to pixels first.
    """
    grid, raw = preds.cells, preds.raw_at(pairs)
    wanted = _in_cells(targets.boxes[pairs.image, pairs.target].to(raw.dtype), preds, pairs)
    if not isinstance(preds.decoder, Anchor) or grid.prior_wh is None:
        return _in_cells(preds.boxes_at(pairs), preds, pairs), wanted
    strides = grid.strides[pairs.anchor].to(raw.dtype)
    matched = preds.decoder.in_cells(raw, grid.prior_wh[pairs.anchor].to(raw.dtype) / strides[:, None])
    centre, size = matched[:, :2], matched[:, 2:]
    return torch.cat((centre, size.clamp(min=SMALLEST)), dim=-1), wanted


def _in_cells(corners: Float[Tensor, "P 4"], preds: Predictions, pairs: Assignment) -> Float[Tensor, "P 4"]:
    """Corner boxes, px, as centre and size in cells, relative to the corner of each pair's cell."""
    stride = preds.cells.strides[pairs.anchor, None].to(corners.dtype)
    middle = preds.cells.points[pairs.anchor].to(corners.dtype)  # of the cell
    boxes = xyxy_to_cxcywh(corners)
    return torch.cat(((boxes[:, :2] - middle) / stride + 0.5, boxes[:, 2:] / stride), dim=-1)
