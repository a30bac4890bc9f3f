# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Candidate positions of a pyramid."""

from dataclasses import dataclass

from jaxtyping import Float, Int64
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Grid:
    """Candidate positions of a pyramid: level by level (fine to coarse), row by row, then by prior.

    With `prior_first` a level goes prior by prior and row by row inside each: the order of published YOLOv5 maps.
    """

    points: Float[Tensor, "A 2"]  # px, cell centres as (x, y)
    strides: Float[Tensor, " A"]  # px
    level: Int64[Tensor, " A"]
    shapes: tuple[tuple[int, int], ...]  # (rows, columns) of each level
    level_strides: tuple[int, ...]  # px, one per level
    prior_wh: Float[Tensor, "A 2"] | None = None  # px, anchor size of each candidate; None: one candidate per cell
    level_priors: tuple[tuple[tuple[float, float], ...], ...] = ()  # px, host copy of each level's (width, height)
    prior_first: bool = False
    first_level: int = 0  # pyramid index of the first level here, for grids that hold one level of several
    total_levels: int | None = None  # levels of the whole pyramid; None: those that are here

    @property
    def level_sizes(self) -> tuple[int, ...]:
        """Candidates of each level."""
        priors = self.level_priors or ((None,),) * len(self.shapes)
        return tuple(rows * columns * len(of) for (rows, columns), of in zip(self.shapes, priors, strict=True))

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) in pixels, from the finest level."""
        (rows, columns), stride = self.shapes[0], self.level_strides[0]
        return rows * stride, columns * stride
