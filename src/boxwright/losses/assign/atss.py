# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""ATSS: each object takes the nearest candidates of every level whose prior overlaps it unusually well."""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from boxwright.config import component
from boxwright.errors import ConfigError
from boxwright.losses.assign.around_centres import Objects, cells_of_level, decoded_boxes, within, won_pairs
from boxwright.losses.assign.trace import Trace, build_trace, code_of
from boxwright.losses.layout.candidates import BORDER
from boxwright.ops.collective import sum_over_ranks
from boxwright.ops.objects import with_objects
from boxwright.ops.overlap import EPSILON, paired_overlap
from boxwright.structures import Assignment, Grid, Predictions, Targets


@component
class ATSS:
    """Each object takes those of its nearest candidates whose prior overlaps it more than its own threshold.

    Its candidates are, on every level, all priors of the `topk` cells whose centres are nearest to its own (the first
    of equally near ones). The threshold is mean plus standard deviation of their IoU with the object. Of those at or
    above it, the ones whose centre lies inside the box are positives. A candidate that several objects want goes to the
    one its prior overlaps most.

    A grid without priors is read as one square prior per cell with sides of `prior_scale` strides. Predictions decide
    nothing but, with `quality` "iou", the weight of a pair: the overlap of its predicted box; otherwise it is 1. The
    normalizer is the sum of weights over all ranks, at least 1.
    No tensor is larger than (objects, cells near a centre). Targets that were not prepared cost one host sync.

    Source: Zhang et al. 2020, arXiv:1912.02424. Deviations: overlaps are compared with 1e-7 to spare, so that equal
    ones all pass; boxes without area take nothing.
    """

    kind: Literal["atss"] = "atss"
    topk: Annotated[int, Field(ge=1)] = 9  # cells of each level
    prior_scale: Annotated[float, Field(gt=0)] = 8.0  # strides
    quality: Literal["one", "iou"] = "one"

    def __post_init__(self) -> None:
        if self.topk < 1 or not self.prior_scale > 0:
            raise ConfigError(
                f"ATSS: expected topk of at least 1 and prior_scale above 0, got {self.topk} and {self.prior_scale}"
            )

    def prepare(self, targets: Targets, grid: Grid) -> Targets:
        """The targets with their objects counted on the host; unchanged where that was done."""
        return with_objects(targets)

    @torch.no_grad()
    def __call__(self, preds: Predictions, targets: Targets) -> Assignment:
        """Pairs, with at most `topk` slots for each object, level and prior, and never more than candidates.

        Raises:
            ShapeError: queries, oriented boxes, or a label that the predictions do not have.
        """
        grid, (batch, anchors) = preds.cells, preds.logits.shape[:2]
        objects = Objects.of("ATSS", preds, targets)
        anchor = torch.cat([self._nearest(grid, level, objects) for level in range(len(grid.shapes))], dim=1)
        points = grid.points.to(objects.box.dtype)[anchor]
        iou = paired_overlap(self._priors(grid, anchor, points), objects.box[:, None])
        mean = iou.mean(dim=1, keepdim=True)
        spread = ((iou - mean).square().sum(dim=1, keepdim=True) / max(iou.shape[1] - 1, 1)).sqrt()
        alive = iou + EPSILON >= mean + spread
        alive &= within(points, objects.box, BORDER) & objects.sized[:, None]

        owner = torch.arange(len(anchor), device=anchor.device).repeat_interleave(
            anchor.shape[1], output_size=anchor.numel()
        )
        flat = anchor.flatten()
        row, valid = won_pairs(objects.image[owner], flat, alive.flatten(), iou.flatten(), (batch, anchors))
        owner, flat = owner[row], flat[row]
        image = objects.image[owner]
        weight = torch.ones_like(iou.flatten()[row])
        if self.quality == "iou":
            weight = paired_overlap(decoded_boxes(preds)[image, flat], objects.box[owner])
        weight = torch.where(valid, weight, torch.zeros_like(weight))
        normalizer = sum_over_ranks(weight.sum()).clamp(min=1)
        return Assignment(image, flat, objects.slot[owner], valid, weight, normalizer)

    @torch.no_grad()
    def trace(self, preds: Predictions, targets: Targets, pairs: Assignment) -> Trace:
        """The nearest priors of each object; overlap and metric are those of the prior. Syncs."""
        grid = preds.cells
        objects = Objects.of("ATSS", preds, targets)
        anchor = torch.cat([self._nearest(grid, level, objects) for level in range(len(grid.shapes))], dim=1)
        points = grid.points.to(objects.box.dtype)[anchor]
        iou = paired_overlap(self._priors(grid, anchor, points), objects.box[:, None])
        mean = iou.mean(dim=1, keepdim=True)
        spread = ((iou - mean).square().sum(dim=1, keepdim=True) / max(iou.shape[1] - 1, 1)).sqrt()
        high, inside = iou + EPSILON >= mean + spread, within(points, objects.box, BORDER)
        count = anchor.shape[1]
        image, slot = (of.repeat_interleave(count) for of in (objects.image, objects.slot))
        flat, overlap = anchor.flatten(), iou.flatten()
        fate = torch.where(inside, code_of("below_threshold"), code_of("outside_box")).flatten()
        asked = torch.where((high & inside).flatten(), count, 0)
        columns = (image, slot, flat, torch.full_like(overlap, torch.nan), overlap, overlap)
        return build_trace(preds, pairs, *columns, asked=asked, otherwise=fate)

    def _nearest(self, grid: Grid, level: int, objects: Objects) -> Tensor:
        """All priors of the nearest cells of a level, (N, K)."""
        (rows, columns), stride = grid.shapes[level], grid.level_strides[level]
        # k nearest cells of a row span at most k of it, or k + 1 with those of the other side, and inside a plane less.
        side = self.topk | 1
        count = (min(side, columns), min(side, rows))
        nearest = (objects.centre / stride - 1).ceil().long()  # of two equally near ones the first
        low = (nearest - side // 2).clamp(min=0)
        first = torch.stack((low[:, 0].clamp(max=columns - count[0]), low[:, 1].clamp(max=rows - count[1])), dim=1)
        anchor, _ = cells_of_level(grid, level, first, count)
        gap = (grid.points.to(objects.box.dtype)[anchor] - objects.centre[:, None]).square().sum(dim=-1)
        priors = grid.level_sizes[level] // (rows * columns)
        taken = min(self.topk, rows * columns) * priors
        # Priors of one cell are equally near, so whole cells are taken; in the order of candidates among equals.
        order = gap.sort(dim=1, stable=True).indices[:, :taken]
        return anchor.gather(1, order)

    def _priors(self, grid: Grid, anchor: Tensor, points: Tensor) -> Tensor:
        """Boxes of the priors, px xyxy."""
        if grid.prior_wh is None:
            half = (grid.strides.to(points.dtype)[anchor] * (self.prior_scale / 2))[..., None]
        else:
            half = grid.prior_wh.to(points.dtype)[anchor] / 2
        return torch.cat((points - half, points + half), dim=-1)
