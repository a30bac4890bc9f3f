# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Task-aligned assignment, one object and one cell at a time, in float64: slow, from spec/losses C.2 and H.3-H.5."""

from dataclasses import dataclass

import numpy as np
from tests.reference.overlap import ciou


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
    alpha=0.5,
    beta=6.0,
    zero_metric_positives="drop",
    conflict_scope="containing",
    validity="mask",
):
    """Scores (B, A, C) after sigmoid; boxes, points and targets in px; labels and valid (B, M)."""
    owner, weight = {}, {}
    for image in range(len(scores)):
        counts = [_counts(box, real, validity) for box, real in zip(targets[image], valid[image], strict=True)]
        inside = [
            [counts[j] and _inside(point, targets[image][j]) for point in points] for j in range(len(labels[image]))
        ]
        overlap, metric = np.zeros((2, len(labels[image]), len(points)))
        for j, label in enumerate(labels[image]):
            for a in range(len(points)):
                if inside[j][a]:
                    overlap[j, a] = max(0.0, ciou(targets[image][j], boxes[image][a]))
                    metric[j, a] = scores[image][a][label] ** alpha * overlap[j, a] ** beta
        chosen = np.zeros(metric.shape, dtype=bool)
        for j in range(len(metric)):
            best = sorted(range(len(points)), key=lambda a, j=j: (-metric[j, a], a))[:topk]
            for a in best:
                keeps = metric[j, a] > 0 or zero_metric_positives == "lowest_index"
                chosen[j, a] = bool(inside[j][a]) and keeps
        for a in range(len(points)):
            if chosen[:, a].sum() > 1:
                rivals = [j for j in range(len(metric)) if conflict_scope == "all" or inside[j][a]]
                winner = max(rivals, key=lambda j, a=a: (overlap[j, a], -j))
                chosen[:, a] = False
                chosen[winner, a] = True
        for j, a in np.argwhere(chosen):
            peak_metric, peak_overlap = (metric[j] * chosen[j]).max(), (overlap[j] * chosen[j]).max()
            owner[image, int(a)] = int(j)
            weight[image, int(a)] = float(metric[j, a] * peak_overlap / (peak_metric + 1e-9))
    return Reference(owner, weight)


def _counts(box, real, validity):
    return bool(real) and (validity == "mask" or sum(box) > 0)


def _inside(point, box):
    x, y = point
    x1, y1, x2, y2 = box
    return min(x - x1, y - y1, x2 - x, y2 - y) > 1e-9
