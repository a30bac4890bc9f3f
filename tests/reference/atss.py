# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""ATSS by loops over objects, levels and candidates in float64, from arXiv:1912.02424."""

import statistics

from tests.reference.overlap import iou


def assign(priors, points, level, targets, valid, *, topk=9, per_cell=1):
    """Priors (px xyxy) and points by candidate; targets in px by image. Returns {(image, anchor): slot}."""
    chosen = {}
    for image in range(len(targets)):
        claims = {}
        for slot, real in enumerate(valid[image]):
            box = targets[image][slot]
            if not real or box[2] <= box[0] or box[3] <= box[1]:
                continue
            centre = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
            near = []
            for index in sorted(set(level)):
                mine = [anchor for anchor in range(len(points)) if level[anchor] == index]
                # Equally near cells in their order, row by row; all priors of a cell stand together.
                mine.sort(
                    key=lambda a, c=centre: (
                        (points[a][0] - c[0]) ** 2 + (points[a][1] - c[1]) ** 2,
                        points[a][1],
                        points[a][0],
                        a,
                    )
                )
                near += mine[: topk * per_cell]
            overlaps = [iou(priors[anchor], box) for anchor in near]
            spread = statistics.stdev(overlaps) if len(overlaps) > 1 else 0.0
            threshold = statistics.fmean(overlaps) + spread
            for anchor, overlap in zip(near, overlaps, strict=True):
                x, y = points[anchor]
                inside = min(x - box[0], y - box[1], box[2] - x, box[3] - y) > 1e-9
                if overlap + 1e-7 >= threshold and inside:
                    claims.setdefault(anchor, []).append((-overlap, slot))
        for anchor, wishes in claims.items():
            chosen[image, anchor] = min(wishes)[1]
    return chosen
