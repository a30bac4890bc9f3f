# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""SimOTA: each object takes the cheapest candidates near its centre, as many as its best overlaps add up to."""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from boxwright.config import component
from boxwright.errors import ConfigError
from boxwright.kernels.entries import Background, background_and_entries
from boxwright.kernels.softplus import class_chunks
from boxwright.losses.assign.around_centres import Objects, cells_of_level, decoded_boxes, within, won_pairs
from boxwright.losses.assign.trace import Trace, build_trace, code_of
from boxwright.losses.layout.candidates import BORDER
from boxwright.ops.collective import sum_over_ranks
from boxwright.ops.objects import with_objects
from boxwright.ops.overlap import paired_overlap
from boxwright.ops.scores import class_probabilities
from boxwright.structures import Assignment, Grid, Predictions, Targets

OUTSIDE = 1e5  # cost of a cell outside the box: above any other, so such cells come last
TINY = 1e-8  # keeps the logarithm of an overlap of 0 finite
LOG_FLOOR = -100.0  # of the logarithm of a probability of 0


@component
class SimOTA:
    """Each object takes its cheapest candidates among the cells whose centre is near its own.

    The cost is the classes' cross-entropy with the object's class plus `iou_gain` times the logarithm of 1 / IoU. How
    many an object takes is the whole part of the sum of its `topk` best overlaps there, at least one. A candidate that
    several objects want goes to the one it costs least.

    Near means within `radius` strides along both axes, on every level. Cells near the centre but outside the box come
    after all that are inside. The weight of a pair is 1, or with `quality` "iou" its overlap, as YOLOX trains its class
    scores; the normalizer is the sum of weights over all ranks, at least 1.
    No tensor is larger than (objects, cells near a centre). Targets that were not prepared cost one host sync.

    Source: YOLOX, Ge et al. 2021, arXiv:2107.08430. Deviations: a contested candidate goes to one of the objects that
    want it; boxes without area take nothing; without objectness, or with exclusive classes and no objectness, the
    cross-entropy is that of the class scores themselves.
    """

    kind: Literal["simota"] = "simota"
    topk: Annotated[int, Field(ge=1)] = 10
    radius: Annotated[float, Field(gt=0)] = 2.5  # strides
    class_gain: float = 1.0
    iou_gain: float = 3.0
    quality: Literal["iou", "one"] = "iou"

    def __post_init__(self) -> None:
        if self.topk < 1 or not self.radius > 0:
            raise ConfigError(
                f"SimOTA: expected topk of at least 1 and radius above 0, got {self.topk} and {self.radius}"
            )

    def prepare(self, targets: Targets, grid: Grid) -> Targets:
        """The targets with their objects counted on the host; unchanged where that was done."""
        return with_objects(targets)

    @torch.no_grad()
    def __call__(self, preds: Predictions, targets: Targets) -> Assignment:
        """Pairs, with at most `topk` slots for each object.

        Raises:
            ShapeError: queries, oriented boxes, or a label that the predictions do not have.
        """
        grid, (batch, anchors) = preds.cells, preds.logits.shape[:2]
        objects = Objects.of("SimOTA", preds, targets)
        anchor, near = self._near(grid, objects)
        iou = paired_overlap(decoded_boxes(preds)[objects.image[:, None], anchor], objects.box[:, None])
        iou = torch.where(near, iou, torch.zeros_like(iou))
        # Double: what is left of a float32 cost beside OUTSIDE would make ties.
        cost = self.class_gain * self._class_cost(preds, objects, anchor) - self.iou_gain * (iou + TINY).log()
        points = grid.points.to(objects.box.dtype)[anchor]
        cost = cost.double() + OUTSIDE * ~within(points, objects.box, BORDER)
        order = torch.where(near, cost, torch.inf).sort(dim=1, stable=True).indices[:, : self.topk]
        best = iou.topk(min(self.topk, iou.shape[1]), dim=1).values.sum(dim=1)
        wanted = best.to(torch.int64).clamp(min=1)
        alive = near.gather(1, order) & (torch.arange(order.shape[1], device=order.device) < wanted[:, None])

        picked = anchor.gather(1, order).flatten()
        owner = torch.arange(len(objects.image), device=order.device).repeat_interleave(
            order.shape[1], output_size=order.numel()
        )
        merit = -cost.gather(1, order).flatten()
        row, valid = won_pairs(objects.image[owner], picked, alive.flatten(), merit, (batch, anchors))
        weight = iou.gather(1, order).flatten()[row]
        weight = weight if self.quality == "iou" else torch.ones_like(weight)
        weight = torch.where(valid, weight, torch.zeros_like(weight))
        owner = owner[row]
        normalizer = sum_over_ranks(weight.sum()).clamp(min=1)
        return Assignment(objects.image[owner], picked[row], objects.slot[owner], valid, weight, normalizer)

    @torch.no_grad()
    def trace(self, preds: Predictions, targets: Targets, pairs: Assignment) -> Trace:
        """Every cell near each object's centre; the metric is minus the cost. Syncs."""
        grid = preds.cells
        objects = Objects.of("SimOTA", preds, targets)
        anchor, near = self._near(grid, objects)
        iou = paired_overlap(decoded_boxes(preds)[objects.image[:, None], anchor], objects.box[:, None])
        cost = self.class_gain * self._class_cost(preds, objects, anchor) - self.iou_gain * (iou + TINY).log()
        inside = within(grid.points.to(objects.box.dtype)[anchor], objects.box, BORDER)
        cost = cost.double() + OUTSIDE * ~inside
        best = torch.where(near, iou, 0.0).topk(min(self.topk, iou.shape[1]), dim=1).values.sum(dim=1)
        wanted = best.to(torch.int64).clamp(min=1)
        row, column = near.nonzero(as_tuple=True)
        image, slot, cell = objects.image[row], objects.slot[row], anchor[row, column]
        objectness = None if preds.objectness is None else preds.objectness[image, cell]
        scores = class_probabilities(preds.logits[image, cell], preds.exclusive, objectness)
        score = scores.gather(1, objects.label[row][:, None])[:, 0]
        columns = (image, slot, cell, score, iou[row, column], -cost[row, column].to(iou.dtype))
        fate = torch.where(inside[row, column], code_of("outside_topk"), code_of("outside_box"))
        return build_trace(preds, pairs, *columns, asked=wanted[row], otherwise=fate)

    def _near(self, grid: Grid, objects: Objects) -> tuple[Tensor, Tensor]:
        """Candidates around every centre, (N, K), and which of them are near enough."""
        side = -int(-2 * self.radius // 1)  # an open interval of 2 r cells holds at most this many centres
        anchors, near = [], []
        for level, stride in enumerate(grid.level_strides):
            centre = objects.centre / stride
            first = (centre - 0.5 - self.radius).floor().long() + 1
            anchor, exists = cells_of_level(grid, level, first, (side, side))
            gap = (grid.points.to(centre.dtype)[anchor] / stride - centre[:, None]).abs().amax(dim=-1)
            anchors.append(anchor)
            near.append(exists & (gap < self.radius) & objects.sized[:, None])
        return torch.cat(anchors, dim=1), torch.cat(near, dim=1)

    def _class_cost(self, preds: Predictions, objects: Objects, anchor: Tensor) -> Tensor:
        """Cross-entropy of every candidate's classes with the object's class, (N, K)."""
        image = objects.image[:, None].expand_as(anchor)
        label = objects.label[:, None].expand_as(anchor)
        if preds.objectness is None:
            form = Background("exclusive" if preds.exclusive else "softplus")
            every = torch.ones_like(anchor, dtype=torch.bool).flatten()
            dense, entries = background_and_entries(
                preds.logits, image.flatten(), anchor.flatten(), label.flatten(), every, form
            )
            return dense[image, anchor] - entries.view(anchor.shape)
        # The root of the joint score, as YOLOX has it: scores of an untrained objectness are near 0.
        misses = []
        for chunk in class_chunks(preds.logits):
            score = class_probabilities(preds.logits[chunk], preds.exclusive, preds.objectness[chunk]).sqrt()
            misses.append(-torch.log1p(-score).clamp(min=LOG_FLOOR).sum(dim=-1))
        dense = torch.cat(misses)
        logits, objectness = preds.logits[image, anchor], preds.objectness[image, anchor]
        hits = class_probabilities(logits, preds.exclusive, objectness).gather(-1, label[..., None])[..., 0].sqrt()
        return dense[image, anchor] + torch.log1p(-hits).clamp(min=LOG_FLOOR) - hits.log().clamp(min=LOG_FLOOR)
