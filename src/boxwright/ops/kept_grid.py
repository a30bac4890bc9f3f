# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Grids of maps that come again in every step: made once, so that a step copies no anchors to the device."""

from functools import lru_cache

import torch
from torch import Tensor

from boxwright.ops.grid import grid_for_image, make_grid
from boxwright.structures import Grid

Priors = tuple[tuple[float, float], ...]  # px, (width, height) of each


def grid_like(
    like: Tensor,
    shapes: tuple[tuple[int, int], ...],
    strides: tuple[int, ...],
    priors: tuple[Priors, ...] | None = None,
    first_level: int = 0,
    total_levels: int | None = None,
) -> Grid:
    """The grid of maps of these (rows, columns), on the device of a tensor; candidates prior by prior."""
    place = (shapes, strides, priors, first_level, total_levels, like.device)
    # Traced or fake tensors must not meet a grid kept from another call.
    if type(like) is not Tensor or torch.compiler.is_compiling() or _traced():
        return _grid(*place)
    return _kept_grid(*place)


@lru_cache(maxsize=64)
def image_grid(
    image_size: tuple[int, int],
    strides: tuple[int, ...],
    device: torch.device,
    priors: tuple[Priors, ...] | None = None,
) -> Grid:
    """The grid of an image of (height, width) pixels, kept; candidates prior by prior.

    Raises:
        ShapeError: a side is not a multiple of a stride.
    """
    with torch.inference_mode(False):  # the next caller may be a training step
        return grid_for_image(image_size, strides, device, priors=priors, prior_first=priors is not None)


def _traced() -> bool:
    return torch._C._get_tracing_state() is not None


def _grid(
    shapes: tuple[tuple[int, int], ...],
    strides: tuple[int, ...],
    priors: tuple[Priors, ...] | None,
    first_level: int,
    total_levels: int | None,
    device: torch.device,
) -> Grid:
    return make_grid(
        shapes,
        strides,
        device,
        priors=priors,
        prior_first=priors is not None,
        first_level=first_level,
        total_levels=total_levels,
    )


@lru_cache(maxsize=64)  # a few hundred kB each; multi-scale training uses some dozens
def _kept_grid(
    shapes: tuple[tuple[int, int], ...],
    strides: tuple[int, ...],
    priors: tuple[Priors, ...] | None,
    first_level: int,
    total_levels: int | None,
    device: torch.device,
) -> Grid:
    with torch.inference_mode(False):  # the next caller may be a training step
        return _grid(shapes, strides, priors, first_level, total_levels, device)
