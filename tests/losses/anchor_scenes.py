# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Small scenes for anchor-based criteria: raw maps of 1 to 5 levels, as one `Predictions` or one per level."""

import torch
from tests.losses.scenes import CLASSES, SIZE
from torch import Tensor

from boxwright.ops.decode import Anchor
from boxwright.ops.grid import grid_for_image, make_grid
from boxwright.structures import Grid, Outputs, Predictions

PRIORS = (((8, 10), (16, 12)), ((24, 30), (40, 20)), ((50, 60), (90, 45)), ((70, 90), (60, 40)), ((90, 60), (30, 80)))
LEVEL_STRIDES = (4, 8, 16, 32, 32)


def pyramid(levels: int = 3, *, prior_first: bool = True, size: tuple[int, int] = SIZE) -> Grid:
    """The grid of the first levels."""
    strides = (8, 16, 32) if levels == 3 else LEVEL_STRIDES[:levels]
    return grid_for_image(size, strides, priors=PRIORS[:levels], prior_first=prior_first)


def random_maps(
    generator: torch.Generator, batch: int, grid: Grid, classes: int = CLASSES, dtype: torch.dtype = torch.float64
) -> list[Tensor]:
    """Published maps (B, priors, rows, columns, 5 + classes) of noise, as leaves."""
    maps = []
    for (rows, columns), priors in zip(grid.shapes, grid.level_priors, strict=True):
        shape = (batch, len(priors), rows, columns, 5 + classes)
        maps.append(torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_())
    return maps


def joined(maps: list[Tensor], grid: Grid, *, table: bool = True, exclusive: bool = False) -> Outputs:
    """One `Predictions` of all levels, in the grid's order of candidates."""
    flat = [of.flatten(1, 3) if grid.prior_first else of.permute(0, 2, 3, 1, 4).flatten(1, 3) for of in maps]
    return Outputs(_predictions(torch.cat(flat, dim=1), grid, table=table, exclusive=exclusive))


def by_level(maps: list[Tensor], grid: Grid, *, table: bool = True, exclusive: bool = False) -> Outputs:
    """One `Predictions` per level, each a view of its map."""
    assert grid.prior_first
    found = []
    for level, (of, shape, stride) in enumerate(zip(maps, grid.shapes, grid.level_strides, strict=True)):
        part = make_grid(
            [shape],
            [stride],
            priors=[grid.level_priors[level]],
            prior_first=True,
            first_level=level,
            total_levels=len(maps),
        )
        found.append(_predictions(of.flatten(1, 3), part, layer=level, table=table, exclusive=exclusive))
    return Outputs(found[-1], tuple(found[:-1]))


def _predictions(
    rows: Tensor, grid: Grid, *, layer: int = 0, table: bool = True, exclusive: bool = False
) -> Predictions:
    return Predictions(
        logits=rows[..., 5:],
        box_raw=rows[..., :4],
        decoder=Anchor(),
        grid=grid,
        layer=layer,
        objectness=rows[..., 4],
        table=rows if table else None,
        exclusive=exclusive,
    )
