# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The grid of candidate positions, from feature-map shapes and strides or from an image size."""

from collections.abc import Sequence

import torch

from boxwright.errors import ShapeError
from boxwright.structures import Grid

Priors = Sequence[Sequence[Sequence[float | int]]]  # px, (width, height) of every prior (anchor) of each level


def make_grid(
    shapes: Sequence[tuple[int, int]],
    strides: Sequence[int],
    device: torch.device | str | None = None,
    *,
    priors: Priors | None = None,
    prior_first: bool = False,
    first_level: int = 0,
    total_levels: int | None = None,
) -> Grid:
    """Cell centres of every level, level by level, row by row, in pixels; with priors, one candidate for each.

    `first_level` and `total_levels` say which part of a pyramid this is, for a grid that holds one level of several.

    >>> make_grid([(1, 2)], [8]).points.tolist()
    [[4.0, 4.0], [12.0, 4.0]]
    >>> make_grid([(1, 2)], [8], priors=[[(10, 13), (16, 30)]]).prior_wh.tolist()
    [[10.0, 13.0], [16.0, 30.0], [10.0, 13.0], [16.0, 30.0]]

    Raises:
        ShapeError: shapes, strides and priors differ in number, there are none, or a prior has no area.
    """
    if not shapes or len(shapes) != len(strides):
        raise ShapeError(
            f"make_grid: expected one stride per level, got {len(shapes)} shapes and {len(strides)} strides"
        )
    level_priors = _level_priors(priors, len(shapes))
    points, step, level, sizes = [], [], [], []
    for index, ((rows, columns), stride) in enumerate(zip(shapes, strides, strict=True)):
        y = (torch.arange(rows, dtype=torch.float32, device=device) + 0.5) * stride
        x = (torch.arange(columns, dtype=torch.float32, device=device) + 0.5) * stride
        cells = torch.stack((x.repeat(rows), y.repeat_interleave(columns)), dim=-1)
        if level_priors:
            wh = torch.tensor(level_priors[index], dtype=torch.float32, device=device)
            every = torch.zeros_like(cells)  # added and not repeated: exported graphs keep the number of cells open
            sizes.append((wh[:, None] + every if prior_first else every[:, None] + wh).flatten(0, 1))
            cells = cells.repeat(len(wh), 1) if prior_first else cells.repeat_interleave(len(wh), 0)
        points.append(cells)
        step.append(torch.full_like(cells[:, 0], float(stride)))
        level.append(torch.full_like(cells[:, 0], index, dtype=torch.int64))
    return Grid(
        points=torch.cat(points),
        strides=torch.cat(step),
        level=torch.cat(level),
        shapes=tuple((int(rows), int(columns)) for rows, columns in shapes),
        level_strides=tuple(int(stride) for stride in strides),
        prior_wh=torch.cat(sizes) if sizes else None,
        level_priors=level_priors,
        prior_first=prior_first,
        first_level=first_level,
        total_levels=total_levels,
    )


def grid_for_image(
    size: tuple[int, int],
    strides: Sequence[int],
    device: torch.device | str | None = None,
    *,
    priors: Priors | None = None,
    prior_first: bool = False,
) -> Grid:
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
    shapes = [(height // stride, width // stride) for stride in strides]
    return make_grid(shapes, strides, device, priors=priors, prior_first=prior_first)


def _level_priors(priors: Priors | None, levels: int) -> tuple[tuple[tuple[float, float], ...], ...]:
    if priors is None:
        return ()
    found = tuple(tuple((float(width), float(height)) for width, height in level) for level in priors)
    if len(found) != levels or not all(found):
        raise ShapeError(
            f"make_grid: expected at least one prior for each of {levels} levels, got {[len(level) for level in found]}"
        )
    for index, level in enumerate(found):
        for prior in level:
            if not min(prior) > 0:
                raise ShapeError(
                    f"make_grid: expected priors of positive width and height (px), got {prior} at level {index}"
                )
    return found
