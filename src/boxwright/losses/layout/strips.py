# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The grid cells inside boxes as strips of neighbouring cells, on the host; cut into short runs for the step.

A convex box holds neighbours in every grid row: an axis-aligned one a rectangle of them on each level, an oriented one
a strip of its own in each row.
"""

from typing import NamedTuple

import numpy as np

from boxwright.ops.containment import BORDER
from boxwright.structures import Grid

SLACK = 1e-9  # of the sizes involved; far more than rounding moves the end of an interval


class Strips(NamedTuple):
    """`rows` strips of `columns` cells each, one below the other; ordered by object, level and row."""

    group: np.ndarray  # object * levels + level
    start: np.ndarray  # anchor index of the first cell
    columns: np.ndarray
    rows: np.ndarray

    def only(self, allowed: np.ndarray) -> "Strips":
        """Without the cells of groups that are not allowed."""
        return self._replace(rows=np.where(allowed[self.group], self.rows, 0))


def rectangle_strips(box: np.ndarray, grid: Grid) -> Strips:
    """Cells inside corner boxes (N, 4), px: one group of equal strips for each object and level."""
    _, width, level_first = _levels(grid)
    rectangles = [_rectangle(box, shape, stride) for shape, stride in zip(grid.shapes, grid.level_strides, strict=True)]
    # (objects, levels): by object first, then level, as the order of pairs wants it.
    column, columns, row, rows = (np.stack(part, axis=1) for part in zip(*rectangles, strict=True))
    start = level_first + row * width + column
    return Strips(np.arange(columns.size), start.ravel(), columns.ravel(), rows.ravel())


def rotated_strips(box: np.ndarray, grid: Grid) -> Strips:
    """Cells inside or on the border of oriented boxes (N, 5), px and radians: one strip for each grid row."""
    height, width, level_first = _levels(grid)
    cos, sin = np.cos(box[:, 4]), np.sin(box[:, 4])
    reach = (np.abs(box[:, 2] * sin) + np.abs(box[:, 3] * cos)) / 2
    stride = np.array(grid.level_strides, dtype=np.float64)
    # Rows that the enclosing box touches; one more on each side, so that rounding here decides nothing.
    top = (box[:, 1] - reach)[:, None] / stride - 1.5
    low = np.clip(np.floor(top), 0, height).astype(np.int64)
    high = np.clip(np.ceil(top + 2 * reach[:, None] / stride + 3), 0, height).astype(np.int64)
    group, number = expand(np.maximum(high - low, 0).ravel())
    owner, level = np.divmod(group, len(grid.shapes))
    row = low.ravel()[group] + number
    column, columns = _columns(box[owner], cos[owner], sin[owner], row, stride[level], width[level])
    return Strips(group, level_first[level] + row * width[level] + column, columns, np.ones_like(row))


def level_cells(strips: Strips, objects: int, grid: Grid) -> np.ndarray:
    """(objects, levels) number of cells."""
    levels = len(grid.shapes)
    return _sum_by(strips.group, strips.columns * strips.rows, objects * levels).reshape(objects, levels)


def runs_of_strips(
    strips: Strips, image: np.ndarray, grid: Grid, run_cells: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Cells and runs of each object; first cell (image * A + anchor) and length of every run."""
    height, width, _ = _levels(grid)
    object_of, level = np.divmod(strips.group, len(grid.shapes))
    across = -(-strips.columns // run_cells)
    inside = _sum_by(object_of, strips.columns * strips.rows, len(image))
    runs = _sum_by(object_of, across * strips.rows, len(image))
    strip, number = expand(across * strips.rows)
    line, part = np.divmod(number, across[strip])
    skipped = part * run_cells
    start = image[object_of] * int((height * width).sum()) + strips.start
    first = start[strip] + line * width[level][strip] + skipped
    return inside, runs, first, np.minimum(strips.columns[strip] - skipped, run_cells)


def expand(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For counts (2, 3): owners 0 0 1 1 1 and positions 0 1 0 1 2 within each.

    >>> [part.tolist() for part in expand(np.array([2, 3]))]
    [[0, 0, 1, 1, 1], [0, 1, 0, 1, 2]]
    """
    owner = np.repeat(np.arange(len(counts)), counts)
    return owner, np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)


def _levels(grid: Grid) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, columns and first anchor of every level."""
    height, width = (np.array([shape[axis] for shape in grid.shapes], dtype=np.int64) for axis in (0, 1))
    return height, width, np.cumsum(height * width) - height * width


def _sum_by(group: np.ndarray, values: np.ndarray, groups: int) -> np.ndarray:
    # Float weights are exact for counts.
    return np.bincount(group, weights=values, minlength=groups).astype(np.int64)


def _rectangle(box: np.ndarray, shape: tuple[int, int], stride: int) -> tuple[np.ndarray, ...]:
    """First column, columns, first row and rows of the cells inside each box; no columns and rows if there is none."""
    sides = []
    for low, high, cells in ((box[:, 0], box[:, 2], shape[1]), (box[:, 1], box[:, 3], shape[0])):
        centres = (np.arange(cells) + 0.5) * stride
        first = np.searchsorted(centres, low + BORDER, side="right")
        sides += [first, np.maximum(np.searchsorted(centres, high - BORDER, side="left") - first, 0)]
    column, columns, row, rows = sides
    empty = (columns == 0) | (rows == 0)
    return column, np.where(empty, 0, columns), row, np.where(empty, 0, rows)


def _columns(
    box: np.ndarray, cos: np.ndarray, sin: np.ndarray, row: np.ndarray, stride: np.ndarray, width: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """First column and number of columns whose centres lie in oriented boxes, in one grid row each."""
    y = (row + 0.5) * stride - box[:, 1]
    low, high = np.full(len(row), -np.inf), np.full(len(row), np.inf)
    # |x cos + y sin| <= w / 2 and |y cos - x sin| <= h / 2, each an interval of x; wide enough to miss no cell.
    for slope, offset, side in ((cos, y * sin, box[:, 2]), (-sin, y * cos, box[:, 3])):
        half = side / 2 + SLACK * (side + np.abs(offset) + 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            ends = np.stack(((-half - offset) / slope, (half - offset) / slope))
        low, high = np.fmax(low, ends.min(axis=0)), np.fmin(high, ends.max(axis=0))
    first = np.clip(np.ceil((box[:, 0] + low) / stride - 0.5), 0, width).astype(np.int64)
    last = np.clip(np.floor((box[:, 0] + high) / stride - 0.5), -1, width - 1).astype(np.int64)
    # The definition decides. It is monotone in x, rounding included, so what is inside stays one strip.
    for column, step in ((first, 1), (last, -1)):
        moving = np.flatnonzero(first <= last)
        while len(moving):
            x = (column[moving] + 0.5) * stride[moving] - box[moving, 0]
            u = x * cos[moving] + y[moving] * sin[moving]
            v = -x * sin[moving] + y[moving] * cos[moving]
            outside = (np.abs(u) > box[moving, 2] / 2) | (np.abs(v) > box[moving, 3] / 2)
            moving = moving[outside]
            column[moving] += step
            moving = moving[first[moving] <= last[moving]]
    return first, np.maximum(last - first + 1, 0)
