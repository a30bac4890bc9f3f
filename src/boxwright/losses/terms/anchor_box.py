# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The box term of anchor-based heads, and the overlap in cells that it shares with the objectness target."""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from boxwright.config import component
from boxwright.ops.boxes import xyxy_to_cxcywh
from boxwright.ops.decode import Anchor
from boxwright.ops.overlap import OverlapName, paired_overlap
from boxwright.structures import Assignment, Predictions, Targets

SMALLEST = 1e-12  # cells; a side that underflows to 0 would make the aspect ratio 0 / 0


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
    matched, wanted = boxes_in_cells(preds, targets, pairs)
    found = paired_overlap(matched, wanted, overlap, box_format="cxcywh")
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
    strides = grid.strides[pairs.anchor].to(raw.dtype)
    corner = grid.points[pairs.anchor].to(raw.dtype) - strides[:, None] / 2
    wanted = _in_cells(targets.boxes[pairs.image, pairs.target].to(raw.dtype), corner, strides)
    if not isinstance(preds.decoder, Anchor) or grid.prior_wh is None:
        return _in_cells(preds.boxes_at(pairs), corner, strides), wanted
    priors = grid.prior_wh[pairs.anchor].to(raw.dtype) / strides[:, None]
    matched = preds.decoder.in_cells(raw, priors)
    centre, size = matched[:, :2], matched[:, 2:]
    return torch.cat((centre, size.clamp(min=SMALLEST)), dim=-1), wanted


def _in_cells(boxes: Tensor, corner: Tensor, strides: Tensor) -> Tensor:
    centred = xyxy_to_cxcywh(boxes)
    return torch.cat((centred[:, :2] - corner, centred[:, 2:]), dim=-1) / strides[:, None]
