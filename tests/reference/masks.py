# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The mask term and the semantic term, pixel by pixel in Python floats (spec/losses D.10, F.5)."""

import math
from collections.abc import Callable, Sequence


def bce(logit: float, target: bool) -> float:
    softplus = max(logit, 0) + math.log1p(math.exp(-abs(logit)))
    return softplus - logit if target else softplus


def mask_value(
    coefs: Sequence[float],
    prototype: Callable[[int, int, int], float],
    truth: Callable[[int, int], bool],
    box: tuple[float, float, float, float],
    size: tuple[int, int],
    mask_size: tuple[int, int],
    shift: float = 0.0,
) -> float:
    """Value of one pair; `prototype` takes channel, row and column; `shift` 0.5 compares pixel centres."""
    height, width = mask_size
    x1, x2 = (box[i] * width / size[1] for i in (0, 2))
    y1, y2 = (box[i] * height / size[0] for i in (1, 3))
    total = 0.0
    for row in range(height):
        for column in range(width):
            if x1 <= column + shift < x2 and y1 <= row + shift < y2:
                logit = sum(c * prototype(m, row, column) for m, c in enumerate(coefs))
                total += bce(logit, truth(row, column))
    area = (box[2] - box[0]) / size[1] * ((box[3] - box[1]) / size[0])
    return total / (height * width) / area if area > 0 else 0.0


def semantic_value(logits: list, target: list) -> float:
    """Half mean BCE and half Dice of one image; both arguments are nested lists [class][row][column]."""
    entropy, dice, count = 0.0, 0.0, 0
    for plane, wanted in zip(logits, target, strict=True):
        inter = p_sum = t_sum = 0.0
        for row, wanted_row in zip(plane, wanted, strict=True):
            for z, t in zip(row, wanted_row, strict=True):
                p = 1 / (1 + math.exp(-z))
                entropy, count = entropy + bce(z, t), count + 1
                inter, p_sum, t_sum = inter + p * t, p_sum + p, t_sum + t
        dice += 1 - (2 * inter + 1) / (p_sum + t_sum + 1)
    return 0.5 * entropy / count + 0.5 * dice / len(logits)
