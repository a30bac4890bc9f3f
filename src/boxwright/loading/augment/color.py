# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Colour changes; no pixel moves."""

import cv2
import numpy as np
from jaxtyping import UInt8

_LEVELS = np.arange(256, dtype=np.float64)
_TRUNCATE = -0.4999  # added before rounding
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

    Draws three numbers, always. The result is a view of planes in memory, as a batch wants them.
    Source: spec/recipe 6, the additive hue of 2025.
    """
    shift, more_saturation, more_value = (float(x) for x in rng.uniform(-1, 1, 3) * (hue, saturation, value))
    if shift == more_saturation == more_value == 0:
        return image
    tables = hsv_tables(shift, 1 + more_saturation, 1 + more_value)
    factors = None, _as_factor(tables[1], 1 + more_saturation), _as_factor(tables[2], 1 + more_value)
    height, width = image.shape[:2]
    result = np.empty((3, height, width), np.uint8)
    for start in range(0, height, _STRIP):
        strip = cv2.cvtColor(image[start : start + _STRIP], cv2.COLOR_RGB2HSV)
        channels = cv2.split(strip)
        for channel, table, factor in zip(channels, tables, factors, strict=True):
            if factor is None:
                cv2.LUT(channel, table, dst=channel)
            else:
                cv2.convertScaleAbs(channel, channel, factor, _TRUNCATE)
        cv2.merge(channels, dst=strip)
        cv2.cvtColor(strip, cv2.COLOR_HSV2RGB, dst=strip)
        for plane, channel in zip(result, cv2.split(strip), strict=True):
            plane[start : start + _STRIP] = channel
    return result.transpose(1, 2, 0)


def _as_factor(table: UInt8[np.ndarray, " 256"], factor: float) -> float | None:
    """The factor, if scaling by it gives exactly the table (nearly always; it is faster than looking up), else None."""
    scaled = cv2.convertScaleAbs(_LEVELS.astype(np.uint8), alpha=factor, beta=_TRUNCATE)
    return factor if np.array_equal(scaled.ravel(), table) else None
