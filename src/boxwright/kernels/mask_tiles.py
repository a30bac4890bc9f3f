# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The mask loss of matched pairs for accelerators, where no value may be read: all shapes follow from the arguments.

Pairs are cut into tiles of one image each, and pixels outside a crop are computed and left out. No tensor of
(pairs, h, w) is kept: the backward pass computes the logits again.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int32, Int64
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from boxwright.kernels.rows import fill_zero_
from boxwright.ops.scores import SATURATED

TILE_ROWS = 32  # pairs of one image that share one copy of its prototypes
TILE_ELEMENTS = 1 << 25  # mask logits computed at once on an accelerator: 128 MiB of float32


def tiled_mask_sums(
    coefs: Float[Tensor, "P Q"],
    prototypes: Float[Tensor, "B Q h w"],
    truth: Int32[Tensor, "B h w"] | Bool[Tensor, "B M h w"],
    crops: Int64[Tensor, "B M 4"],
    image: Int64[Tensor, " P"],
    target: Int64[Tensor, " P"],
    valid: Bool[Tensor, " P"],
) -> Float[Tensor, " P"]:
    """What `mask_sums.mask_sums` computes, of the same arguments."""
    sums: Tensor = _Tiled.apply(coefs, prototypes, truth, crops, image, target, valid)  # type: ignore[no-untyped-call]
    return sums


class _Tiles(NamedTuple):
    """Pairs in tiles of `TILE_ROWS`, each tile of one image."""

    image: Tensor  # (T,)
    row: Tensor  # (T, TILE_ROWS) pair, any where not live
    live: Tensor  # (T, TILE_ROWS)

    @classmethod
    def of(cls, image: Tensor, valid: Tensor, batch: int) -> "_Tiles":
        key = torch.where(valid, image, batch)
        key, order = torch.sort(key, stable=True)
        count = key.new_zeros(batch + 1).index_add_(0, key, torch.ones_like(key))[:batch]
        tiles = (count + TILE_ROWS - 1) // TILE_ROWS
        end = torch.cumsum(tiles, 0)
        number = torch.arange(len(key) // TILE_ROWS + batch, device=key.device)
        of = torch.searchsorted(end, number, right=True)
        real, of = of < batch, of.clamp(max=batch - 1)
        inside = (number - (end - tiles)[of])[:, None] * TILE_ROWS + torch.arange(TILE_ROWS, device=key.device)
        live = (inside < count[of, None]) & real[:, None]
        place = (torch.cumsum(count, 0) - count)[of, None] + inside
        return cls(of, order[torch.where(live, place, 0)], live)

    def pieces(self, pixels: int) -> "list[_Tiles]":
        """Tiles to work on at once."""
        step = max(TILE_ELEMENTS // (TILE_ROWS * pixels), 1)
        return [_Tiles(*(part[first : first + step] for part in self)) for first in range(0, len(self.image), step)]


class _Window(NamedTuple):
    """What some tiles compute with."""

    coefs: Tensor  # (T, TILE_ROWS, Q)
    prototypes: Tensor  # (T, Q, h * w)
    sign: Tensor  # (T, TILE_ROWS, h * w)
    inside: Tensor  # (T, TILE_ROWS, h * w)

    @classmethod
    def of(
        cls, tiles: _Tiles, coefs: Tensor, prototypes: Tensor, truth: Tensor, crops: Tensor, target: Tensor
    ) -> "_Window":
        height, width = prototypes.shape[-2:]
        slot, image = target[tiles.row], tiles.image[:, None]
        seen = truth[tiles.image][:, None] == (slot + 1)[..., None, None] if truth.ndim == 3 else truth[image, slot]
        left, top, right, bottom = crops[image, slot][..., None].unbind(dim=-2)
        column, row = (torch.arange(size, device=coefs.device) for size in (width, height))
        across, down = (column >= left) & (column < right), (row >= top) & (row < bottom)
        inside = (across[..., None, :] & down[..., None]) & tiles.live[..., None, None]
        # Rows that are not live may hold anything: their values must not reach a sum.
        mine = torch.where(tiles.live[..., None], coefs[tiles.row], coefs.new_zeros(()))
        sign = 1 - 2 * seen.to(coefs.dtype)
        return cls(mine, prototypes[tiles.image].flatten(2), sign.flatten(2), inside.flatten(2))

    def costs(self) -> Tensor:
        """softplus(sign * logit) of every pixel's logit, before the crop."""
        return torch.bmm(self.coefs, self.prototypes) * self.sign


class _Tiled(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        coefs: Tensor,
        prototypes: Tensor,
        truth: Tensor,
        crops: Tensor,
        image: Tensor,
        target: Tensor,
        valid: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(coefs, prototypes, truth, crops, image, target, valid)
        sums = coefs.new_zeros(len(coefs))
        for tiles, window in _windows(coefs, prototypes, truth, crops, image, target, valid):
            cost = functional.softplus(window.costs(), threshold=SATURATED)
            total = torch.where(window.inside, cost, cost.new_zeros(())).sum(dim=-1)
            sums.index_add_(0, tiles.row.flatten(), total.flatten())  # rows that are not live add 0
        return sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        coefs, prototypes, truth, crops, image, target, valid = ctx.saved_tensors
        by_coefs = torch.zeros_like(coefs)
        by_prototypes = fill_zero_(torch.empty_like(prototypes, memory_format=torch.contiguous_format))
        for tiles, window in _windows(coefs, prototypes, truth, crops, image, target, valid):
            factor = torch.where(tiles.live, gradient[tiles.row], gradient.new_zeros(()))[..., None]
            slope = torch.sigmoid(window.costs()) * window.sign
            slope = torch.where(window.inside, slope, slope.new_zeros(())) * factor
            mine = torch.bmm(slope, window.prototypes.transpose(1, 2))
            by_coefs.index_add_(0, tiles.row.flatten(), mine.flatten(0, 1))
            there = torch.bmm(window.coefs.transpose(1, 2), slope)
            by_prototypes.index_add_(0, tiles.image, there.view(-1, *prototypes.shape[1:]))
        return by_coefs, by_prototypes, None, None, None, None, None


def _windows(
    coefs: Tensor, prototypes: Tensor, truth: Tensor, crops: Tensor, image: Tensor, target: Tensor, valid: Tensor
) -> Iterator[tuple[_Tiles, _Window]]:
    if len(coefs) == 0:  # known without reading a value
        return
    batch, _, height, width = prototypes.shape
    for tiles in _Tiles.of(image, valid, batch).pieces(height * width):
        yield tiles, _Window.of(tiles, coefs, prototypes, truth, crops, target)
