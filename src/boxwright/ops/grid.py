# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The grid of candidate positions, from feature-map shapes and strides or from an image size."""

from collections.abc import Sequence

import torch

from boxwright.errors import ShapeError
from boxwright.structures import Grid


def make_grid(
    shapes: Sequence[tuple[int, int]], strides: Sequence[int], device: torch.device | str | None = None
) -> Grid:
    """Cell centres of every level, level by level, row by row, in pixels.

    >>> make_grid([(1, 2)], [8]).points.tolist()
    [[4.0, 4.0], [12.0, 4.0]]

    Raises:
        ShapeError: shapes and strides differ in number, or there are none.
    """
    if not shapes or len(shapes) != len(strides):
        raise ShapeError(
            f"make_grid: expected one stride per level, got {len(shapes)} shapes and {len(strides)} strides"
        )
    points, step, level = [], [], []
    for index, ((rows, columns), stride) in enumerate(zip(shapes, strides, strict=True)):
        y = (torch.arange(rows, dtype=torch.float32, device=device) + 0.5) * stride
        x = (torch.arange(columns, dtype=torch.float32, device=device) + 0.5) * stride
        points.append(torch.stack((x.repeat(rows), y.repeat_interleave(columns)), dim=-1))
        step.append(torch.full((rows * columns,), float(stride), device=device))
        level.append(torch.full((rows * columns,), index, dtype=torch.int64, device=device))
    return Grid(
        points=torch.cat(points),
        strides=torch.cat(step),
        level=torch.cat(level),
        shapes=tuple((int(rows), int(columns)) for rows, columns in shapes),
        level_strides=tuple(int(stride) for stride in strides),
    )


def grid_for_image(size: tuple[int, int], strides: Sequence[int], device: torch.device | str | None = None) -> Grid:
    """The grid of an image of (height, width) pixels.

    >>> grid_for_image((32, 64), (16, 32)).shapes
    ((2, 4), (1, 2))

    Raises:
        ShapeError: a side is not a multiple of a stride.
    """
    height, width = size
    coarsest = max(strides, default=1)
    for stride in strides:
        if height % stride or width % stride:
            raise ShapeError(
                f"image size: expected height and width divisible by the stride {stride}, got {height} x {width}; "
                f"pad the image to a multiple of {coarsest}"
            )
    return make_grid([(height // stride, width // stride) for stride in strides], strides, device)
