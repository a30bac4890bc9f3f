# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""ATSS: each object takes the nearest candidates of every level whose prior overlaps it unusually well."""

from typing import Annotated, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from pydantic import Field
from torch import Tensor

from boxwright.config import component
from boxwright.errors import ConfigError
from boxwright.losses.assign.per_image import (
    assignment,
    best,
    boxes_of_image,
    check_upright,
    true_boxes_of_image,
    with_area,
)
from boxwright.losses.assign.trace import Trace, build_trace, code_of
from boxwright.ops.containment import points_inside
from boxwright.ops.overlap import EPSILON, paired_overlap
from boxwright.structures import Assignment, Grid, Predictions, Targets


class Nearest(NamedTuple):
    """The K candidates around each object of an image."""

    anchor: Int64[Tensor, "M K"]
    overlap: Float[Tensor, "M K"]  # IoU of the object with the candidate's prior
    high: Bool[Tensor, "M K"]  # it reaches the object's threshold
    inside: Bool[Tensor, "M K"]  # the candidate's centre lies in the object's box


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

    @torch.no_grad()
    def __call__(self, preds: Predictions, targets: Targets) -> Assignment:
        """Pairs by image and candidate. Waits for the device.

        Raises:
            ShapeError: queries, oriented boxes, or a label or box that the predictions cannot have.
        """
        check_upright("ATSS", preds, targets)
        chosen, weights = [], []
        for image in range(len(targets.labels)):
            boxes, found = true_boxes_of_image(preds, targets, image), boxes_of_image(preds, image)
            anchor, overlap, high, inside = self.nearest(preds.cells, boxes)
            positive = high & inside & (targets.valid[image] & with_area(boxes))[:, None]
            merit = overlap.new_full((len(boxes), len(found)), -torch.inf).scatter(
                1, anchor, overlap.masked_fill(~positive, -torch.inf)
            )
            # A candidate that several objects want goes to the one its prior overlaps most.
            chosen.append((merit > -torch.inf) & best(merit, 1, dim=0))
            weights.append(paired_overlap(found, boxes[:, None]) if self.quality == "iou" else torch.ones_like(merit))
        return assignment(preds, chosen, weights)

    def nearest(self, grid: Grid, boxes: Float[Tensor, "M 4"]) -> Nearest:
        """The candidates around boxes (px xyxy), level by level, and which of them overlap unusually well."""
        points, centre = grid.points.to(boxes.dtype), (boxes[:, :2] + boxes[:, 2:]) / 2
        gap = (points - centre[:, None]).square().sum(dim=-1)
        anchors, first = [], 0
        for (rows, columns), size in zip(grid.shapes, grid.level_sizes, strict=True):
            cells = rows * columns
            place = torch.arange(first, first + size, device=gap.device)
            place = place.view(-1, cells).T if grid.prior_first else place.view(cells, -1)  # candidates of each cell
            order = gap[:, place[:, 0]].sort(dim=1, stable=True).indices[:, : self.topk]
            anchors.append(place[order].flatten(1))
            first += size
        anchor = torch.cat(anchors, dim=1)
        overlap = paired_overlap(self.priors(grid, anchor, points[anchor]), boxes[:, None])
        # The threshold: mean plus standard deviation of the overlaps, with 1e-7 to spare so that equal ones all pass.
        mean = overlap.mean(dim=1, keepdim=True)
        spread = ((overlap - mean).square().sum(dim=1, keepdim=True) / max(overlap.shape[1] - 1, 1)).sqrt()
        inside = points_inside(points, boxes).gather(1, anchor)
        return Nearest(anchor, overlap, overlap + EPSILON >= mean + spread, inside)

    @torch.no_grad()
    def trace(self, preds: Predictions, targets: Targets, pairs: Assignment) -> Trace:
        """The nearest priors of each object; overlap and metric are those of the prior. Syncs."""
        check_upright("ATSS", preds, targets)
        parts = []
        for image in range(len(targets.labels)):
            slot = targets.valid[image].nonzero()[:, 0]
            anchor, overlap, high, inside = self.nearest(preds.cells, true_boxes_of_image(preds, targets, image)[slot])
            slot, unknown = slot[:, None].expand_as(anchor), torch.full_like(overlap, torch.nan)
            fate = torch.where(inside, code_of("below_threshold"), code_of("outside_box"))
            wanted = torch.where(high & inside, anchor.shape[1], 0)
            columns = (torch.full_like(slot, image), slot, anchor, unknown, overlap, overlap, wanted, fate)
            parts.append([column.flatten() for column in columns])
        *candidates, wanted, fate = (torch.cat(column) for column in zip(*parts, strict=True))
        return build_trace(preds, pairs, *candidates, wanted=wanted, otherwise=fate)

    def priors(self, grid: Grid, anchor: Int64[Tensor, "*k"], points: Float[Tensor, "*k 2"]) -> Float[Tensor, "*k 4"]:
        """Boxes of the candidates' priors, px xyxy."""
        if grid.prior_wh is None:
            half = (grid.strides.to(points.dtype)[anchor] * (self.prior_scale / 2))[..., None]
        else:
            half = grid.prior_wh.to(points.dtype)[anchor] / 2
        return torch.cat((points - half, points + half), dim=-1)
