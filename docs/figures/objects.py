# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The one drawn scene of all assigner pages, and what a half-trained model would say about it."""

from functools import cache

import numpy as np
import torch
from torch import Tensor

from boxwright.drawn.synthetic import DrawnScene, draw_scene
from boxwright.losses import Outputs, Predictions, Targets, from_detr_stacks, from_yolov5_maps, targets_from_rows
from boxwright.ops.boxes import xyxy_to_cxcywh
from boxwright.ops.decode import Distance
from boxwright.ops.grid import grid_for_image

SIDE, STRIDES, CLASSES = 160, (8, 16, 32), 4
SEED, INDEX = 7, 0
ANCHORS = [[(10, 13), (16, 30), (33, 23)], [(30, 61), (62, 45), (59, 119)], [(116, 90), (156, 198), (373, 326)]]  # px
SCENE_TEXT = (
    "The scene is drawn by `boxwright.drawn.synthetic`; the predictions are made up: every cell's box is the true box "
    "of the smallest object around its centre with some noise, its score falls with the distance from the object's "
    "centre."
)


@cache
def scene() -> DrawnScene:
    """The scene: some objects of four kinds, some of them one over another."""
    return draw_scene(SIDE, SEED, "train", INDEX)


@cache
def targets() -> Targets:
    """Its labels."""
    instances = scene().instances
    boxes, labels = torch.from_numpy(instances.boxes), torch.from_numpy(instances.labels)
    image = torch.zeros(len(labels), dtype=torch.int64)
    return targets_from_rows(
        image, labels, boxes, batch=1, image_size=(SIDE, SIDE), unit="pixel_xyxy", num_classes=CLASSES
    )


@cache
def dense() -> Predictions:
    """Predictions of an anchor-free head with one bin (the distances themselves)."""
    grid = grid_for_image((SIDE, SIDE), STRIDES)
    boxes, scores = half_trained(grid.points, grid.strides)
    raw = torch.cat((grid.points - boxes[:, :2], boxes[:, 2:] - grid.points), dim=1) / grid.strides[:, None]
    return Predictions(scores.logit()[None], raw[None], Distance(num_bins=1), grid)


def half_trained(points: Tensor, strides: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes (A, 4), px xyxy, and class scores (A, C) of candidates at points."""
    rng = np.random.Generator(np.random.PCG64(1))
    truth, labels = targets().boxes[0], targets().labels[0]
    boxes = torch.cat((points - strides[:, None], points + strides[:, None]), dim=1)
    scores = torch.full((len(points), CLASSES), 0.02)
    for index in torch.argsort(-area(truth)).tolist():  # small objects last: they are in front
        x1, y1, x2, y2 = truth[index].tolist()
        inside = (points[:, 0] > x1) & (points[:, 0] < x2) & (points[:, 1] > y1) & (points[:, 1] < y2)
        side = max(x2 - x1, y2 - y1)
        noise = torch.from_numpy(rng.normal(0, 0.08, (len(points), 4))).float() * side
        off = ((points - torch.tensor([(x1 + x2) / 2, (y1 + y2) / 2])).abs() / side).amax(dim=1)
        boxes = torch.where(inside[:, None], truth[index] + noise, boxes)
        level = torch.exp(-((torch.log2(side / (4 * strides))) ** 2) / 2)  # each size has a level that knows it best
        sure = (0.75 * torch.exp(-2 * off) * level).clamp(min=0.03)
        scores[:, labels[index]] = torch.where(inside, sure, scores[:, labels[index]])
    return boxes, scores


@cache
def queries() -> Predictions:
    """Twelve queries: two for every object, a good and a poor one, and some that hit nothing."""
    rng = np.random.Generator(np.random.PCG64(2))
    truth, labels = targets().boxes[0], targets().labels[0]
    boxes, scores = [], torch.full((12, CLASSES), 0.05)
    for query in range(12):
        target = query % 4
        sides = (truth[target, 2:] - truth[target, :2]).repeat(2)
        noise = torch.from_numpy(rng.normal(0, 1, 4)).float()
        boxes.append(truth[target] + noise * sides * (0.08, 0.2, 0.8)[query // 4])
        scores[query, labels[target]] = (0.6, 0.7, 0.1)[query // 4]
    shares = xyxy_to_cxcywh(torch.stack(boxes)) / SIDE
    shares[:, 2:] = shares[:, 2:].clamp(min=0.05)
    return from_detr_stacks(
        shares[None, None].clamp(0, 1), scores.logit()[None, None], image_size=(SIDE, SIDE), encoder_first=False
    ).final


@cache
def with_anchors() -> Outputs:
    """Predictions of an anchor-based head; its assignment reads their shapes only."""
    maps = [torch.zeros(1, 3, SIDE // s, SIDE // s, 5 + CLASSES) for s in STRIDES]
    return from_yolov5_maps(maps, ANCHORS, STRIDES, anchor_unit="pixel", num_classes=CLASSES)


def area(boxes: Tensor) -> Tensor:
    """Px squared of xyxy boxes."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
