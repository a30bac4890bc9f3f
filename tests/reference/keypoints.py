# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The keypoint terms, keypoint by keypoint in Python floats (spec/losses D.11, F.7); everything in cells."""

import math
from collections.abc import Callable, Sequence

Point = tuple[float, float]


def location(
    predicted: Sequence[Point], wanted: Sequence[Point], visible: Sequence[bool], area: float, sigmas: Sequence[float]
) -> float:
    """Mean over the keypoints of one pair."""
    factor = len(visible) / (sum(visible) + 1e-9)
    total = 0.0
    for (px, py), (x, y), seen, sigma in zip(predicted, wanted, visible, sigmas, strict=True):
        e = ((px - x) ** 2 + (py - y) ** 2) / ((2 * sigma) ** 2 * (area + 1e-9) * 2)
        total += factor * seen * (1 - math.exp(-e))
    return total / len(visible)


def likelihood(
    predicted: Sequence[Point],
    wanted: Sequence[Point],
    raw_spread: Sequence[Point],
    visible: Sequence[bool],
    weights: Sequence[float],
    log_density: Callable[[Point], float],
) -> tuple[float, int]:
    """Sum over the visible keypoints of one pair, and their number."""
    total, rows = 0.0, 0
    for p, t, raw, seen, weight in zip(predicted, wanted, raw_spread, visible, weights, strict=True):
        if not seen:
            continue
        spread = [1 / (1 + math.exp(-value)) for value in raw]
        residual = [max(-100.0, min(100.0, (p[i] - t[i]) / (spread[i] + 1e-9))) for i in (0, 1)]
        if not all(map(math.isfinite, residual)):
            continue
        rows += 1
        for i in (0, 1):
            total += weight * (
                math.log(spread[i]) - log_density(tuple(residual)) + math.log(2 * spread[i]) + abs(residual[i])
            )
    return total, rows
