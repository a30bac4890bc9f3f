# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""SimOTA by loops over objects and cells in float64, from arXiv:2107.08430 with the deviations that the part names."""

import math

from tests.reference.overlap import iou


def assign(
    class_costs, boxes, points, strides, labels, targets, valid, *, topk=10, radius=2.5, class_gain=1.0, iou_gain=3.0
):
    """class_costs[image][anchor][label]; boxes, points and targets in px. Returns {(image, anchor): (slot, IoU)}."""
    chosen = {}
    for image in range(len(boxes)):
        claims = {}
        for slot, real in enumerate(valid[image]):
            box = targets[image][slot]
            if not real or box[2] <= box[0] or box[3] <= box[1]:
                continue
            centre = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
            ranked, overlaps = [], []
            for anchor, ((x, y), stride) in enumerate(zip(points, strides, strict=True)):
                if max(abs(x - centre[0]), abs(y - centre[1])) >= radius * stride:
                    continue
                overlap = iou(boxes[image][anchor], box)
                cost = class_gain * class_costs[image][anchor][labels[image][slot]]
                cost -= iou_gain * math.log(overlap + 1e-8)
                outside = not min(x - box[0], y - box[1], box[2] - x, box[3] - y) > 1e-9
                ranked.append((outside, cost, anchor, overlap))
                overlaps.append(overlap)
            count = max(int(sum(sorted(overlaps, reverse=True)[:topk])), 1)
            for outside, cost, anchor, overlap in sorted(ranked)[:count]:
                claims.setdefault(anchor, []).append((outside, cost, slot, overlap))
        for anchor, wishes in claims.items():
            _, _, slot, overlap = min(wishes)
            chosen[image, anchor] = (slot, overlap)
    return chosen
