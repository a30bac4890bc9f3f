# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""ATSS among blocks of cells around each object's centre: no tensor is larger than (objects, cells near a centre)."""

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
from boxwright.losses.assign.atss import ATSS
from boxwright.ops.collective import sum_over_ranks
from boxwright.ops.containment import BORDER
from boxwright.ops.overlap import EPSILON, paired_overlap
from boxwright.structures import Assignment, Grid, Predictions, Targets

prepare = lay_out_objects


@torch.no_grad()
def atss(assigner: ATSS, preds: Predictions, targets: Targets) -> Assignment:
    """Pairs, with at most `topk` slots for each object, level and prior, and never more than candidates.

    Raises:
        ShapeError: queries, oriented boxes, or a label that the predictions do not have.
    """
    grid, (batch, anchors) = preds.cells, preds.logits.shape[:2]
    objects = Objects.of("ATSS", preds, targets)
    anchor = torch.cat([_nearest(assigner, grid, level, objects) for level in range(len(grid.shapes))], dim=1)
    points = grid.points.to(objects.box.dtype)[anchor]
    iou = paired_overlap(assigner.priors(grid, anchor, points), objects.box[:, None])
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
    if assigner.quality == "iou":
        weight = paired_overlap(decoded_boxes(preds)[image, flat], objects.box[owner])
    weight = torch.where(valid, weight, torch.zeros_like(weight))
    normalizer = sum_over_ranks(weight.sum()).clamp(min=1)
    return Assignment(image, flat, objects.slot[owner], valid, weight, normalizer)


def _nearest(assigner: ATSS, grid: Grid, level: int, objects: Objects) -> Tensor:
    """All priors of the nearest cells of a level, (N, K)."""
    (rows, columns), stride = grid.shapes[level], grid.level_strides[level]
    # k nearest cells of a row span at most k of it, or k + 1 with those of the other side, and inside a plane less.
    side = assigner.topk | 1
    count = (min(side, columns), min(side, rows))
    nearest = (objects.centre / stride - 1).ceil().long()  # of two equally near ones the first
    low = (nearest - side // 2).clamp(min=0)
    first = torch.stack((low[:, 0].clamp(max=columns - count[0]), low[:, 1].clamp(max=rows - count[1])), dim=1)
    anchor, _ = cells_of_level(grid, level, first, count)
    cells = count[0] * count[1]
    # Priors of one cell are equally near: cells are sorted and taken whole.
    anchor = torch.unflatten(anchor, 1, (-1, cells)).mT if grid.prior_first else torch.unflatten(anchor, 1, (cells, -1))
    gap = (grid.points.to(objects.box.dtype)[anchor[:, :, 0]] - objects.centre[:, None]).square().sum(dim=-1)
    order = gap.sort(dim=1, stable=True).indices[:, : assigner.topk]
    return anchor.gather(1, order[:, :, None].expand(-1, -1, anchor.shape[2])).flatten(1)
