# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Task-aligned assignment, one object and one cell at a time, in float64; spec/losses C.2, F and H.3 to H.5."""

import math
from dataclasses import dataclass

import numpy as np
from tests.reference.overlap import ciou
from tests.reference.probiou import probiou


@dataclass
class Reference:
    """(image, anchor) -> (slot, weight) of every positive, and the sum of the weights."""

    owner: dict[tuple[int, int], int]
    weight: dict[tuple[int, int], float]

    @property
    def total(self) -> float:
        return sum(self.weight.values())


def assign(
    scores,
    boxes,
    points,
    labels,
    targets,
    valid,
    *,
    topk=10,
    topk2=None,
    alpha=0.5,
    beta=6.0,
    min_side=0.0,
    smallest_side=0.0,
    allowed=None,
    fit=None,
    zero_metric_positives="drop",
    conflict_scope="containing",
    validity="mask",
):
    """Scores (B, A, C) after sigmoid; boxes, points and targets in px; labels and valid (B, M).

    `allowed(image, slot, anchor)` may forbid a candidate that lies inside. `fit(image, slot, overlaps, metrics)` may
    replace the overlaps (A,) of an object.
    """
    owner, weight = {}, {}
    for image in range(len(scores)):
        slots = range(len(labels[image]))
        counts = [_counts(targets[image][j], valid[image][j], validity, smallest_side) for j in slots]
        wide = [_widened(targets[image][j], min_side) for j in slots]
        inside = [[counts[j] and _inside(point, wide[j]) for point in points] for j in slots]
        for j in slots:
            keeps = [held and (allowed is None or allowed(image, j, a)) for a, held in enumerate(inside[j])]
            inside[j] = keeps if any(keeps) else inside[j]
        overlap, metric = np.zeros((2, len(labels[image]), len(points)))
        for j, label in enumerate(labels[image]):
            held = np.flatnonzero(inside[j])
            score = np.array([scores[image][a][label] for a in held])
            overlap[j, held] = [max(0.0, _overlap(targets[image][j], boxes[image][a])) for a in held]
            metric[j, held] = score**alpha * overlap[j, held] ** beta
            if fit is not None and len(held):
                overlap[j, held] = fit(image, j, held, overlap[j, held], metric[j, held])
                metric[j, held] = score**alpha * overlap[j, held] ** beta
        chosen = _chosen(metric, inside, topk, zero_metric_positives)
        for a in range(len(points)):
            if chosen[:, a].sum() > 1:
                rivals = [j for j in range(len(metric)) if conflict_scope == "all" or inside[j][a]]
                winner = max(rivals, key=lambda j, a=a: (overlap[j, a], -j))
                chosen[:, a] = False
                chosen[winner, a] = True
        if topk2 is not None and topk2 != topk:
            chosen = _chosen(metric * chosen, chosen, topk2, zero_metric_positives)
        for j, a in np.argwhere(chosen):
            peak_metric, peak_overlap = (metric[j] * chosen[j]).max(), (overlap[j] * chosen[j]).max()
            owner[image, int(a)] = int(j)
            weight[image, int(a)] = float(metric[j, a] * peak_overlap / (peak_metric + 1e-9))
    return Reference(owner, weight)


def _chosen(metric, inside, topk, zero_metric_positives):
    chosen = np.zeros(metric.shape, dtype=bool)
    for j in range(len(metric)):
        best = sorted(range(metric.shape[1]), key=lambda a, j=j: (-metric[j, a], a))[:topk]
        for a in best:
            keeps = metric[j, a] > 0 or zero_metric_positives == "lowest_index"
            chosen[j, a] = bool(inside[j][a]) and keeps
    return chosen


def _overlap(target, box):
    return probiou(target, box) if len(target) == 5 else ciou(target, box)


def _sides(box):
    return (box[2], box[3]) if len(box) == 5 else (box[2] - box[0], box[3] - box[1])


def _counts(box, real, validity, smallest_side):
    width, height = _sides(box)
    if min(width, height) < smallest_side:
        return False
    return bool(real) and (width > 0 and height > 0 if validity == "mask" else sum(box) > 0)


def _widened(box, side):
    if not side:
        return box
    width, height = (max(length, side) for length in _sides(box))
    if len(box) == 5:
        return [box[0], box[1], width, height, box[4]]
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return [x - width / 2, y - height / 2, x + width / 2, y + height / 2]


def _inside(point, box):
    x, y = point
    if len(box) == 5:
        cx, cy, width, height, theta = box
        cos, sin = math.cos(theta), math.sin(theta)
        u, v = (x - cx) * cos + (y - cy) * sin, -(x - cx) * sin + (y - cy) * cos
        return abs(u) <= width / 2 and abs(v) <= height / 2
    x1, y1, x2, y2 = box
    return min(x - x1, y - y1, x2 - x, y2 - y) > 1e-9
