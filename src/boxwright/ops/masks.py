# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Instance masks of the original image from mask coefficients and prototypes, box by box."""

import math
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

from boxwright.ops.letterbox import Letterbox
from boxwright.results import InstanceMask

BAND = 1 << 20  # pixels of the original image computed at once: 4 MB


def instance_masks(
    coefs: Float[np.ndarray, "n Q"],
    prototypes: Float[np.ndarray, "Q h w"],
    boxes: Float[np.ndarray, "n 4"],
    box: Letterbox,
) -> Iterator[InstanceMask | None]:
    """The mask of each box (px xyxy of the original image), None where not a pixel is above the threshold.

    The high quality order: the product of coefficients and prototypes is interpolated to the pixels of the original
    image, bilinear between centres, then cut by the box (a pixel belongs to it when x1 <= x < x2 and y1 <= y < y2),
    then compared with 0. Every step is done inside the box only, so memory is that of one mask and a few megabytes.
    Deviation: places between prototypes and original are exact, where published code first cuts the padding off at
    whole prototype cells; why: no shift of up to half a cell.

    Source: spec/architectures 6.5; YOLACT, Bolya et al. 2019, arXiv:1904.02689.
    """
    height, width = box.source
    for row, (x1, y1, x2, y2) in zip(coefs, boxes.tolist(), strict=True):
        left, right = max(math.ceil(x1), 0), min(math.ceil(x2), width)
        top, bottom = max(math.ceil(y1), 0), min(math.ceil(y2), height)
        if left >= right or top >= bottom:
            yield None
            continue
        yield _mask_in(row, prototypes, box, (top, bottom), (left, right))


def cropped(pixels: np.ndarray, top: int, left: int) -> InstanceMask | None:
    """A mask cut to its pixels, None without any; (`top`, `left`) is where the given pixels begin.

    >>> cropped(np.array([[False, False], [False, True]]), 10, 20)
    InstanceMask(left=21, top=11, pixels=array([[ True]]))
    """
    rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
    if not len(rows):
        return None
    inner = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return InstanceMask(left + int(columns[0]), top + int(rows[0]), inner.copy())


def _mask_in(
    coefs: np.ndarray, prototypes: np.ndarray, box: Letterbox, rows: tuple[int, int], columns: tuple[int, int]
) -> InstanceMask | None:
    gain_y, gain_x = box.gain
    cells_y, cells_x = prototypes.shape[1] / box.target[0], prototypes.shape[2] / box.target[1]
    y0, y1, down = _taps(rows, gain_y * cells_y, box.top * cells_y, prototypes.shape[1])
    x0, x1, along = _taps(columns, gain_x * cells_x, box.left * cells_x, prototypes.shape[2])
    first_y, first_x = int(y0[0]), int(x0[0])
    window = prototypes[:, first_y : int(y1[-1]) + 1, first_x : int(x1[-1]) + 1]
    low = np.tensordot(coefs, window, 1)
    wide = low[:, x0 - first_x] * (1 - along) + low[:, x1 - first_x] * along
    pixels = np.empty((rows[1] - rows[0], columns[1] - columns[0]), np.bool_)
    step = max(BAND // pixels.shape[1], 1)
    for start in range(0, len(pixels), step):
        part = slice(start, start + step)
        share = down[part, None]
        np.greater(wide[y0[part] - first_y] * (1 - share) + wide[y1[part] - first_y] * share, 0, out=pixels[part])
    return cropped(pixels, rows[0], columns[0])


def _taps(pixels: tuple[int, int], scale: float, shift: float, cells: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The two cells that each pixel lies between, and the share of the second; cells beyond the edge repeat it."""
    place = np.clip((np.arange(*pixels) + 0.5) * scale + shift - 0.5, 0, cells - 1)
    low = np.floor(place).astype(np.int64)
    return low, np.minimum(low + 1, cells - 1), (place - low).astype(np.float32)
