# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""SimOTA: each object takes the cheapest candidates near its centre, as many as its best overlaps add up to."""

from typing import Annotated, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from boxwright.config import component
from boxwright.errors import ConfigError
from boxwright.losses.assign.per_image import (
    assignment,
    best,
    boxes_of_image,
    check_upright,
    labels_of_image,
    scores_of_image,
    true_boxes_of_image,
    with_area,
)
from boxwright.losses.assign.trace import Trace, build_trace, code_of
from boxwright.ops.containment import points_inside
from boxwright.ops.overlap import paired_overlap
from boxwright.ops.scores import class_probabilities
from boxwright.structures import Assignment, Predictions, Targets, at_least_float32

OUTSIDE = 1e5  # cost of a cell outside the box: above any other, so such cells come last
TINY = 1e-8  # keeps the logarithm of an overlap of 0 finite
LOG_FLOOR = -100.0  # of the logarithm of a probability of 0


class Costs(NamedTuple):
    """What the objects (rows) of an image see of its cells (columns)."""

    near: Bool[Tensor, "M A"]  # candidates: the cell's centre is near the object's
    inside: Bool[Tensor, "M A"]  # the cell's centre lies in the object's box
    overlap: Float[Tensor, "M A"]  # IoU with the predicted box; 0 where the cell is not near
    cost: Float[Tensor, "M A"]
    wanted: Int64[Tensor, " M"]  # how many cells each object takes


@component
class SimOTA:
    """Each object takes its cheapest candidates among the cells whose centre is near its own.

    The cost is the classes' cross-entropy with the object's class plus `iou_gain` times the logarithm of 1 / IoU. How
    many an object takes is the whole part of the sum of its `topk` best overlaps there, at least one. A candidate that
    several objects want goes to the one it costs least.

    Near means within `radius` strides along both axes, on every level. Cells near the centre but outside the box come
    after all that are inside. The weight of a pair is 1, or with `quality` "iou" its overlap, as YOLOX trains its class
    scores; the normalizer is the sum of weights over all ranks, at least 1.

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

    @torch.no_grad()
    def __call__(self, preds: Predictions, targets: Targets) -> Assignment:
        """Pairs by image and candidate. Waits for the device.

        Raises:
            ShapeError: queries, oriented boxes, or a label or box that the predictions cannot have.
        """
        check_upright("SimOTA", preds, targets)
        chosen, weights = [], []
        for image in range(len(targets.labels)):
            near, _, overlap, cost, wanted = self.costs(preds, targets, image)
            # Every object takes its k cheapest candidates.
            order = cost.masked_fill(~near, torch.inf).sort(dim=1, stable=True).indices
            place = torch.arange(order.shape[1], device=order.device).expand_as(order)
            taken = near & (torch.zeros_like(order).scatter(1, order, place) < wanted[:, None])
            # A cell that several took goes to the one of them that it costs least.
            taken &= best((-cost).masked_fill(~taken, -torch.inf), 1, dim=0)
            chosen.append(taken)
            weights.append(overlap if self.quality == "iou" else torch.ones_like(overlap))
        return assignment(preds, chosen, weights)

    @torch.no_grad()
    def costs(self, preds: Predictions, targets: Targets, image: int) -> Costs:
        """What every object of an image would pay for every cell, and how many it takes."""
        grid, boxes = preds.cells, true_boxes_of_image(preds, targets, image)
        points, strides = grid.points.to(boxes.dtype), grid.strides.to(boxes.dtype)
        centre = (boxes[:, :2] + boxes[:, 2:]) / 2
        gap = (points / strides[:, None] - centre[:, None] / strides[:, None]).abs().amax(dim=-1)  # in cells
        near = (gap < self.radius) & (targets.valid[image] & with_area(boxes))[:, None]
        inside = points_inside(points, boxes)
        overlap = paired_overlap(boxes_of_image(preds, image), boxes[:, None]).masked_fill(~near, 0.0)
        cost = self.class_gain * _class_cost(preds, targets, image) - self.iou_gain * (overlap + TINY).log()
        # In float64: what is left of a float32 cost beside OUTSIDE would make ties.
        cost = cost.double() + OUTSIDE * ~inside
        # The dynamic k: the whole part of the sum of the best overlaps, at least one.
        wanted = overlap.topk(min(self.topk, overlap.shape[1]), dim=1).values.sum(dim=1).long().clamp(min=1)
        return Costs(near, inside, overlap, cost, wanted)

    @torch.no_grad()
    def trace(self, preds: Predictions, targets: Targets, pairs: Assignment) -> Trace:
        """Every cell near each object's centre; the metric is minus the cost. Syncs."""
        check_upright("SimOTA", preds, targets)
        parts = []
        for image in range(len(targets.labels)):
            near, inside, overlap, cost, wanted = self.costs(preds, targets, image)
            score = scores_of_image(preds, targets, image)
            fate = torch.where(inside, code_of("outside_topk"), code_of("outside_box"))
            slot, anchor = near.nonzero(as_tuple=True)
            planes = (score, overlap, -cost.to(overlap.dtype), wanted[:, None].expand_as(near), fate)
            parts.append([torch.full_like(slot, image), slot, anchor, *(plane[near] for plane in planes)])
        *candidates, wanted, fate = (torch.cat(column) for column in zip(*parts, strict=True))
        return build_trace(preds, pairs, *candidates, wanted=wanted, otherwise=fate)


def _class_cost(preds: Predictions, targets: Targets, image: int) -> Float[Tensor, "M A"]:
    """Cross-entropy of every candidate's classes with each object's class."""
    label, logits = labels_of_image(targets, image), at_least_float32(preds.logits[image])
    if preds.objectness is None and preds.exclusive:
        # Background is one more class, with a logit of 0.
        return -functional.pad(logits, (0, 1)).log_softmax(dim=-1).T[label]
    # What a class costs if it is the object's, and what it costs if it is not.
    if preds.objectness is None:
        hit, miss = functional.softplus(-logits), functional.softplus(logits)
    else:
        # The root of the joint score, as YOLOX has it: scores of an untrained objectness are near 0.
        score = class_probabilities(logits, preds.exclusive, preds.objectness[image]).sqrt()
        hit, miss = -score.log().clamp(min=LOG_FLOOR), -torch.log1p(-score).clamp(min=LOG_FLOOR)
    return (miss.sum(dim=-1, keepdim=True) - miss + hit).T[label]
