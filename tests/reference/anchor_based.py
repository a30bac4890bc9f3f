# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The anchor-based criterion (spec/losses C.1, E.1, E.2), one object, prior and cell at a time, in float64."""

import math
from collections.abc import Sequence
from typing import Any

EPSILON = 1e-7

Row = tuple[int, int, int, int, int, tuple[float, float, float, float]]  # image, slot, prior, row, column, box


def claims(
    images: Sequence[Sequence[tuple[float, float, float, float]]],
    priors: Sequence[tuple[float, float]],
    shape: tuple[int, int],
    stride: int,
    ratio: float = 4.0,
    bias: float = 0.5,
) -> list[Row]:
    """Claims of boxes (px xyxy; None is an unused slot) on one level, in canonical order."""
    height, width = shape
    by_direction: list[list[Row]] = [[] for _ in range(5)]  # filled by prior, image and slot
    for prior, (prior_w, prior_h) in enumerate(priors):
        for image, boxes in enumerate(images):
            for slot, box in enumerate(boxes):
                if box is None:
                    continue
                x, y, w, h = _centred(box, stride)
                if w <= 0 or h <= 0:
                    continue
                if max(w * stride / prior_w, prior_w / w / stride, h * stride / prior_h, prior_h / h / stride) >= ratio:
                    continue
                for direction, (used, dx, dy) in enumerate(
                    (
                        (True, 0, 0),
                        (_fraction(x) < bias and x > 1, bias, 0),
                        (_fraction(y) < bias and y > 1, 0, bias),
                        (_fraction(width - x) < bias and width - x > 1, -bias, 0),
                        (_fraction(height - y) < bias and height - y > 1, 0, -bias),
                    )
                ):
                    if used:
                        column = min(max(math.trunc(x - dx), 0), width - 1)
                        row = min(max(math.trunc(y - dy), 0), height - 1)
                        claim = (image, slot, prior, row, column, (x - column, y - row, w, h))
                        by_direction[direction].append(claim)
    return [row for rows in by_direction for row in rows]


def loss(
    maps: Sequence[Any],
    images: Sequence[Sequence[tuple[float, float, float, float]]],
    labels: Sequence[Sequence[int]],
    priors: Sequence[Sequence[tuple[float, float]]],
    strides: Sequence[int],
    balance: Sequence[float],
    *,
    exclusive: bool = False,
    smoothing: float = 0.0,
    duplicates: str = "max",
) -> dict[str, float]:
    """Values of box, obj and cls before gains, of nested lists maps[level][image][prior][row][column][channel]."""
    total = {"box": 0.0, "obj": 0.0, "cls": 0.0}
    for level, values in enumerate(maps):
        shape = len(values[0][0]), len(values[0][0][0])
        rows = claims(images, priors[level], shape, strides[level])
        wanted: dict[tuple[int, int, int, int], float] = {}
        for image, slot, prior, row, column, box in rows:
            cell = values[image][prior][row][column]
            fit = centred_ciou(decoded(cell, priors[level][prior], strides[level]), box)
            total["box"] += (1 - fit) / len(rows)
            total["cls"] += class_cost(cell[5:], labels[image][slot], exclusive, smoothing) / len(rows)
            place, value = (image, prior, row, column), max(fit, 0.0)
            wanted[place] = value if duplicates == "last" else max(value, wanted.get(place, 0.0))
        cells = 0
        cost = 0.0
        for image, by_prior in enumerate(values):
            for prior, by_row in enumerate(by_prior):
                for row, by_column in enumerate(by_row):
                    for column, cell in enumerate(by_column):
                        cost += bce(cell[4], wanted.get((image, prior, row, column), 0.0))
                        cells += 1
        total["obj"] += balance[level] * cost / cells
    return total


def decoded(cell: Sequence[float], prior: tuple[float, float], stride: int) -> tuple[float, float, float, float]:
    """Box in cells, relative to the corner of the cell."""
    x, y, w, h = (1 / (1 + math.exp(-value)) for value in cell[:4])
    return 2 * x - 0.5, 2 * y - 0.5, (2 * w) ** 2 * prior[0] / stride, (2 * h) ** 2 * prior[1] / stride


def class_cost(logits: Sequence[float], label: int, exclusive: bool, smoothing: float) -> float:
    """Of one matched candidate."""
    if len(logits) == 1:
        return 0.0
    if not exclusive:
        wanted = [(1 - smoothing / 2) if c == label else smoothing / 2 for c in range(len(logits))]
        return sum(bce(z, y) for z, y in zip(logits, wanted, strict=True)) / len(logits)
    total = math.log(sum(math.exp(z) for z in logits))
    return (1 - smoothing) * (total - logits[label]) + smoothing * sum(total - z for z in logits) / len(logits)


def centred_ciou(a: Sequence[float], b: Sequence[float]) -> float:
    """CIoU of (cx, cy, w, h); centre sizes carry no epsilon."""
    low = [(box[0] - box[2] / 2, box[1] - box[3] / 2) for box in (a, b)]
    high = [(box[0] + box[2] / 2, box[1] + box[3] / 2) for box in (a, b)]
    inside, hull = 1.0, 0.0
    for axis in (0, 1):
        inside *= max(0.0, min(high[0][axis], high[1][axis]) - max(low[0][axis], low[1][axis]))
        hull += (max(high[0][axis], high[1][axis]) - min(low[0][axis], low[1][axis])) ** 2
    iou = inside / (a[2] * a[3] + b[2] * b[3] - inside + EPSILON)
    gap = (a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2
    v = 4 / math.pi**2 * (math.atan(a[2] / a[3]) - math.atan(b[2] / b[3])) ** 2
    return iou - gap / (hull + EPSILON) - v / (1 - iou + v + EPSILON) * v


def bce(logit: float, wanted: float) -> float:
    """Binary cross-entropy."""
    return wanted * math.log1p(math.exp(-logit)) + (1 - wanted) * math.log1p(math.exp(logit))


def _centred(box: tuple[float, float, float, float], stride: int) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = (value / stride for value in box)
    return (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1


def _fraction(value: float) -> float:
    return value - math.floor(value)
