# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""SimOTA among blocks of cells around each object's centre: no tensor is larger than (objects, cells near a centre)."""

import torch
from torch import Tensor

from boxwright.kernels.assign.around_centres import (
    Objects,
    cells_of_level,
    decoded_boxes,
    lay_out_objects,
    within,
    won_pairs,
)
from boxwright.kernels.entries import Background, background_and_entries
from boxwright.kernels.softplus import class_chunks
from boxwright.losses.assign.simota import LOG_FLOOR, OUTSIDE, TINY, SimOTA
from boxwright.ops.collective import sum_over_ranks
from boxwright.ops.containment import BORDER
from boxwright.ops.overlap import paired_overlap
from boxwright.ops.scores import class_probabilities
from boxwright.structures import Assignment, Grid, Predictions, Targets

prepare = lay_out_objects


@torch.no_grad()
def simota(assigner: SimOTA, preds: Predictions, targets: Targets) -> Assignment:
    """Pairs, with at most `topk` slots for each object.

    Raises:
        ShapeError: queries, oriented boxes, or a label that the predictions do not have.
    """
    grid, (batch, anchors) = preds.cells, preds.logits.shape[:2]
    objects = Objects.of("SimOTA", preds, targets)
    anchor, near = _near(assigner, grid, objects)
    iou = paired_overlap(decoded_boxes(preds)[objects.image[:, None], anchor], objects.box[:, None])
    iou = torch.where(near, iou, torch.zeros_like(iou))
    # Double: what is left of a float32 cost beside OUTSIDE would make ties.
    cost = assigner.class_gain * _class_cost(preds, objects, anchor) - assigner.iou_gain * (iou + TINY).log()
    points = grid.points.to(objects.box.dtype)[anchor]
    cost = cost.double() + OUTSIDE * ~within(points, objects.box, BORDER)
    order = torch.where(near, cost, torch.inf).sort(dim=1, stable=True).indices[:, : assigner.topk]
    best = iou.topk(min(assigner.topk, iou.shape[1]), dim=1).values.sum(dim=1)
    wanted = best.to(torch.int64).clamp(min=1)
    alive = near.gather(1, order) & (torch.arange(order.shape[1], device=order.device) < wanted[:, None])

    picked = anchor.gather(1, order).flatten()
    owner = torch.arange(len(objects.image), device=order.device).repeat_interleave(
        order.shape[1], output_size=order.numel()
    )
    merit = -cost.gather(1, order).flatten()
    row, valid = won_pairs(objects.image[owner], picked, alive.flatten(), merit, (batch, anchors))
    weight = iou.gather(1, order).flatten()[row]
    weight = weight if assigner.quality == "iou" else torch.ones_like(weight)
    weight = torch.where(valid, weight, torch.zeros_like(weight))
    owner = owner[row]
    normalizer = sum_over_ranks(weight.sum()).clamp(min=1)
    return Assignment(objects.image[owner], picked[row], objects.slot[owner], valid, weight, normalizer)


def _near(assigner: SimOTA, grid: Grid, objects: Objects) -> tuple[Tensor, Tensor]:
    """Candidates around every centre, (N, K), and which of them are near enough."""
    side = -int(-2 * assigner.radius // 1)  # an open interval of 2 r cells holds at most this many centres
    anchors, near = [], []
    for level, stride in enumerate(grid.level_strides):
        centre = objects.centre / stride
        first = (centre - 0.5 - assigner.radius).floor().long() + 1
        anchor, exists = cells_of_level(grid, level, first, (side, side))
        gap = (grid.points.to(centre.dtype)[anchor] / stride - centre[:, None]).abs().amax(dim=-1)
        anchors.append(anchor)
        near.append(exists & (gap < assigner.radius) & objects.sized[:, None])
    return torch.cat(anchors, dim=1), torch.cat(near, dim=1)


def _class_cost(preds: Predictions, objects: Objects, anchor: Tensor) -> Tensor:
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
