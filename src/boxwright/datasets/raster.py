# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Outlines to pixels: a pixel belongs to an object when its centre lies inside the outline."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool


class Patch(NamedTuple):
    """Pixels of one object in the rectangle around them."""

    top: int
    left: int
    pixels: Bool[np.ndarray, "r c"]

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the image that `pixels` covers."""
        rows, columns = self.pixels.shape
        return slice(self.top, self.top + rows), slice(self.left, self.left + columns)


def outline_pixels(outline: Sequence[np.ndarray], size: tuple[int, int], cell: float | int = 1) -> Patch:
    """The pixels of an outline on a grid of `size` (rows, columns) whose pixels have a side of `cell` px.

    Parts add up; inside one part the even-odd rule decides, so holes may be joined to their outline by a line there
    and back. Points may lie outside the grid.

    >>> outline_pixels([np.array([(0, 0), (3, 0), (3, 2), (0, 2)])], (4, 4)).pixels.tolist()
    [[True, True, True], [True, True, True]]
    """
    parts = [part / cell for part in outline if len(part) > 2]
    if not parts:
        return Patch(0, 0, np.zeros((0, 0), np.bool_))
    points = np.concatenate(parts)
    limit = size[1], size[0]
    left, top = (max(int(np.ceil(low - 0.5)), 0) for low in points.min(axis=0))
    right, bottom = (min(int(np.ceil(high - 0.5)), end) for high, end in zip(points.max(axis=0), limit, strict=True))
    rows, columns = max(bottom - top, 0), max(right - left, 0)
    pixels = np.zeros((rows, columns), np.bool_)
    if rows and columns:
        for part in parts:
            pixels |= _inside(part - (left, top), rows, columns)
    return Patch(top, left, pixels)


def _inside(points: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Which pixel centres lie inside a closed path: to their left its sides are crossed an odd number of times."""
    x, y = points[:, 0], points[:, 1]
    next_x, next_y = np.roll(x, -1), np.roll(y, -1)
    # Rows whose centre lies at or below one end of a side and above the other.
    first = np.clip(np.ceil(np.minimum(y, next_y) - 0.5), 0, rows).astype(np.int64)
    last = np.clip(np.ceil(np.maximum(y, next_y) - 0.5), 0, rows).astype(np.int64)
    counts = last - first
    side = np.repeat(np.arange(len(x)), counts)
    row = np.arange(len(side)) - np.repeat(np.cumsum(counts) - counts, counts) + first[side]
    share = (row + 0.5 - y[side]) / (next_y - y)[side]
    crossing = x[side] + share * (next_x - x)[side]
    column = np.clip(np.ceil(crossing - 0.5), 0, columns).astype(np.int64)
    crossings = np.bincount(row * (columns + 1) + column, minlength=rows * (columns + 1))
    return np.asarray(np.cumsum(crossings.reshape(rows, columns + 1)[:, :-1], axis=1) % 2 == 1)
