# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Set prediction as plain numbers, from spec/losses C.3, E.9 and E.10: one query, one object at a time."""

import itertools
import math

EPSILON = 1e-7


def sigmoid(z):
    return 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))


def softplus(z):
    return max(z, 0.0) + math.log1p(math.exp(-abs(z)))


def log_softmax(row, index):
    peak = max(row)
    return row[index] - peak - math.log(sum(math.exp(z - peak) for z in row))


def centre_overlaps(a, b):
    """(IoU, GIoU) of centre boxes."""
    (left, right), (up, down) = (
        [(box[axis] - box[axis + 2] / 2, box[axis] + box[axis + 2] / 2) for box in (a, b)] for axis in (0, 1)
    )
    inside = max(0.0, min(left[1], right[1]) - max(left[0], right[0])) * max(
        0.0, min(up[1], down[1]) - max(up[0], down[0])
    )
    union = a[2] * a[3] + b[2] * b[3] - inside + EPSILON
    hull = (max(left[1], right[1]) - min(left[0], right[0])) * (max(up[1], down[1]) - min(up[0], down[0])) + EPSILON
    return inside / union, inside / union - (hull - union) / hull


def cost(box, row, true, label, gains=(2.0, 5.0, 2.0), focal=True, alpha=0.25, gamma=2.0):
    """Matching cost of one query (centre box, logits) with one object."""
    if focal:
        p = sigmoid(row[label])
        positive = alpha * (1 - p) ** gamma * -math.log(p + 1e-8)
        by_class = positive - (1 - alpha) * p**gamma * -math.log(1 - p + 1e-8)
    else:
        by_class = -math.exp(log_softmax(row, label))
    far = sum(abs(x - y) for x, y in zip(box, true, strict=True))
    total = gains[0] * by_class + gains[1] * far + gains[2] * (1 - centre_overlaps(box, true)[1])
    return total if math.isfinite(total) else 0.0


def best_matching(costs):
    """Lowest total and its (query, object) pairs of a table costs[query][object], by trying every choice."""
    queries, objects = len(costs), len(costs[0]) if costs else 0
    few, many = (objects, queries) if objects <= queries else (queries, objects)
    best = (math.inf, [])
    for chosen in itertools.permutations(range(many), few):
        pairs = [(chosen[i], i) if objects <= queries else (i, chosen[i]) for i in range(few)]
        total = sum(costs[q][j] for q, j in pairs)
        if total < best[0]:
            best = (total, sorted(pairs))
    return best if few else (0.0, [])


def class_cost(rows, matches, form, count, *, alpha=0.75, gamma=2.0):
    """Class term of one image's logits; matches {query: (label, quality)}, count the matched pairs of the batch."""
    total = 0.0
    for query, row in enumerate(rows):
        for c, z in enumerate(row):
            label, quality = matches.get(query, (None, 0.0))
            hit, p = c == label, sigmoid(z)
            if form == "bce":
                y = quality if hit else 0.0
                total += y * softplus(-z) + (1 - y) * softplus(z)
            elif form == "varifocal" and count:
                y = quality if hit else 0.0
                total += (quality if hit else alpha * p**gamma) * (y * softplus(-z) + (1 - y) * softplus(z))
            else:
                total += 0.25 * (1 - p) ** 1.5 * softplus(-z) if hit else 0.75 * p**1.5 * softplus(z)
    return total / len(rows) if form == "bce" else total / max(count, 1)


def attribute(rows, labels, shares, dense, weights=None):
    """Weighted mean cross-entropy of pairs (logits, label or -1, weight)."""
    total = used = 0.0
    for row, label, share in zip(rows, labels, shares, strict=True):
        if label != -1:
            weight = share * (weights[label] if weights else 1.0)
            total, used = total - weight * log_softmax(row, label), used + weight
    return total / max(used, 1.0) if dense else total / used if used else 0.0


def attribute_several(rows, labels, shares, dense):
    """The same for several labels: mean binary cross-entropy over a pair's known classes."""
    total = used = 0.0
    for row, wanted, share in zip(rows, labels, shares, strict=True):
        costs = [y * softplus(-z) + (1 - y) * softplus(z) for z, y in zip(row, wanted, strict=True) if y != -1]
        if costs:
            total, used = total + share * sum(costs) / len(costs), used + share
    return total / max(used, 1.0) if dense else total / used if used else 0.0


def denoising(images, noise, layout, groups, most, label_noise, box_noise):
    """Slots {(image, slot): (label, four logits)} of objects images[i] = [(label, normalised corners)].

    noise(block, number) of the number-th object gives (flip, new label, signs, reaches).
    """
    slots, positives, number = {}, [], 0
    for image, objects in enumerate(images):
        for rank, (label, corners) in enumerate(objects):
            for block in range(2 * groups):
                negative = block % 2 == 1 if layout == "interleaved" else block >= groups
                flip, other, signs, reaches = noise(block, number)
                half = [(corners[2] - corners[0]) / 2, (corners[3] - corners[1]) / 2] * 2
                moved = [
                    min(max(x + s * (r + negative) * box_noise * h, 0.0), 1.0)
                    for x, s, r, h in zip(corners, signs, reaches, half, strict=True)
                ]
                centre = [
                    (moved[0] + moved[2]) / 2,
                    (moved[1] + moved[3]) / 2,
                    moved[2] - moved[0],
                    moved[3] - moved[1],
                ]
                cut = [min(max(x, 1e-6), 1 - 1e-6) for x in centre]
                slot = block * most + rank
                slots[image, slot] = (
                    other if flip < label_noise / 2 else label,
                    [math.log(x / (1 - x)) for x in cut],
                )
                if not negative:
                    positives.append((image, slot, rank))
            number += 1
    return slots, sorted(positives)
