# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Colour changes; no pixel moves."""

import cv2
import numpy as np
from jaxtyping import UInt8

_LEVELS = np.arange(256, dtype=np.float64)
_STRIP = 64  # rows at a time: the intermediate images of one strip stay in the cache


def hsv_tables(hue: float, saturation: float, value: float) -> UInt8[np.ndarray, "3 256"]:
    """Tables of 8-bit HSV: hue shifted by a fraction of the circle, saturation and value multiplied and clipped.

    Hue is stored as 0..179. Grey stays grey: saturation 0 maps to 0 for every factor.
    """
    table = np.empty((3, 256), np.uint8)
    table[0] = (_LEVELS + hue * 180) % 180
    table[1] = np.clip(_LEVELS * saturation, 0, 255)
    table[2] = np.clip(_LEVELS * value, 0, 255)
    return table


def jitter_hsv(
    image: UInt8[np.ndarray, "h w 3"], rng: np.random.Generator, hue: float, saturation: float, value: float
) -> UInt8[np.ndarray, "h w 3"]:
    """The RGB image with hue, saturation and value changed by amounts drawn within +- the ranges; the argument is kept.

    Draws three numbers, always. Source: spec/recipe section 6, the additive hue of 2025.
    """
    shift, more_saturation, more_value = (float(x) for x in rng.uniform(-1, 1, 3) * (hue, saturation, value))
    if shift == more_saturation == more_value == 0:
        return image
    tables = hsv_tables(shift, 1 + more_saturation, 1 + more_value)
    result = np.empty_like(image)
    for start in range(0, len(image), _STRIP):
        strip = result[start : start + _STRIP]
        cv2.cvtColor(image[start : start + _STRIP], cv2.COLOR_RGB2HSV, dst=strip)
        planes = cv2.split(strip)
        for plane, table in zip(planes, tables, strict=True):
            cv2.LUT(plane, table, dst=plane)
        cv2.merge(planes, dst=strip)
        cv2.cvtColor(strip, cv2.COLOR_HSV2RGB, dst=strip)
    return result
