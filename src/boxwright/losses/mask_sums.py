# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The mask loss of matched pairs, summed over the pixels of each pair's crop: cropped before the product.

Two forms of one sum. On a CPU pairs are grouped by object, whose pairs share one crop: only pixels in a crop are ever
computed. How many pairs an object got is then read from the assignment, which on a CPU waits for nobody; the form is
one opaque operation, so that tracers need no value. On an accelerator nothing may be read, so all shapes come from P
and the prototypes: pairs are cut into tiles of one image each, and pixels outside a crop are computed and left out.
Neither keeps a tensor of (pairs, h, w): the backward pass computes the logits again.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int32, Int64
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from boxwright.losses.functional import SATURATED, sum_of_softplus
from boxwright.ops.rows import fill_zero_

TILE_ROWS = 32  # pairs of one image that share one copy of its prototypes
TILE_ELEMENTS = 1 << 25  # mask logits computed at once on an accelerator: 128 MiB of float32
FEW_ELEMENTS = 1 << 12  # of an object's mask logits: below this the number of operations counts, not their size
CROP_ELEMENTS = 1 << 18  # mask logits of an object computed at once on a CPU: they stay in a core's cache


def mask_sums(
    coefs: Float[Tensor, "P Q"],
    prototypes: Float[Tensor, "B Q h w"],
    truth: Int32[Tensor, "B h w"] | Bool[Tensor, "B M h w"],
    crops: Int64[Tensor, "B M 4"],
    image: Int64[Tensor, " P"],
    target: Int64[Tensor, " P"],
    valid: Bool[Tensor, " P"],
) -> Float[Tensor, " P"]:
    """Binary cross-entropy of each pair's mask logits with its target's mask, summed over the pixels of its crop.

    Args:
        coefs: of each pair.
        prototypes: of each image, in the dtype of `coefs`.
        truth: one map with slot + 1 where a target is seen, or one mask for each slot.
        crops: first column, first row, and the column and row behind the last, of every slot.
        image: of each pair.
        target: slot of each pair.
        valid: pairs that are not have the sum 0 and no gradient.

    >>> one, zero = torch.ones(1, 1), torch.zeros(1, dtype=torch.int64)
    >>> truth, crop = torch.ones(1, 1, 2, dtype=torch.int32), torch.tensor([[[0, 0, 2, 1]]])
    >>> round(mask_sums(0 * one, torch.ones(1, 1, 1, 2), truth, crop, zero, zero, zero == 0).item(), 4)  # 2 ln 2
    1.3863
    """
    if coefs.device.type == "cpu":
        sums: Tensor = torch.ops.boxwright.cropped_mask_sums(coefs, prototypes, truth, crops, image, target, valid)
        return sums
    return tiled_mask_sums(coefs, prototypes, truth, crops, image, target, valid)


def tiled_mask_sums(
    coefs: Float[Tensor, "P Q"],
    prototypes: Float[Tensor, "B Q h w"],
    truth: Int32[Tensor, "B h w"] | Bool[Tensor, "B M h w"],
    crops: Int64[Tensor, "B M 4"],
    image: Int64[Tensor, " P"],
    target: Int64[Tensor, " P"],
    valid: Bool[Tensor, " P"],
) -> Float[Tensor, " P"]:
    """`mask_sums` in the form for accelerators: all shapes follow from those of the arguments, no value is read."""
    sums: Tensor = _Tiled.apply(coefs, prototypes, truth, crops, image, target, valid)  # type: ignore[no-untyped-call]
    return sums


class _Crop(NamedTuple):
    rows: slice  # pairs of one object, in the order of objects
    prototypes: Tensor  # (Q, n) of the crop's pixels
    sign: Tensor  # (n,) -1 where the object is, 1 elsewhere: the cost of a pixel is softplus(sign * logit)
    window: tuple[int, slice, slice, slice]  # of all prototypes

    def pieces(self) -> list[slice]:
        """Pixels to work on at once."""
        pixels = self.prototypes.shape[1]
        step = max(CROP_ELEMENTS // (self.rows.stop - self.rows.start), 1024)
        return [slice(first, min(first + step, pixels)) for first in range(0, pixels, step)]


def _by_object(image: Tensor, target: Tensor, valid: Tensor, slots: int) -> tuple[Tensor, Tensor]:
    """Object (image * slots + slot) of each pair, or -1, ascending; and the pairs in that order."""
    return torch.sort(torch.where(valid, image * slots + target, -1), stable=True)


def _crops(prototypes: Tensor, truth: Tensor, crops: Tensor, key: Tensor) -> Iterator[_Crop]:
    """The crop of every object that has a pair and a pixel."""
    objects, counts = torch.unique_consecutive(key, return_counts=True)
    edges = crops.flatten(0, 1)[objects].tolist()
    end = 0
    for number, count, (left, top, right, bottom) in zip(objects.tolist(), counts.tolist(), edges, strict=True):
        first, end = end, end + count
        if number < 0 or right <= left or bottom <= top:
            continue
        image, slot = divmod(number, crops.shape[1])
        window = (image, slice(None), slice(top, bottom), slice(left, right))
        seen = truth[image, window[2], window[3]] == slot + 1 if truth.ndim == 3 else truth[image, slot, *window[2:]]
        sign = 1 - 2 * seen.reshape(-1).to(prototypes.dtype)
        yield _Crop(slice(first, end), prototypes[window].flatten(1), sign, window)


def _cropped_sums(
    coefs: Tensor, prototypes: Tensor, truth: Tensor, crops: Tensor, image: Tensor, target: Tensor, valid: Tensor
) -> Tensor:
    key, order = _by_object(image, target, valid, crops.shape[1])
    coefs, sums = coefs[order], coefs.new_zeros(len(coefs))
    for crop in _crops(prototypes, truth, crops, key):
        mine, total = coefs[crop.rows], sums[crop.rows]
        for pixels in crop.pieces():
            signed = (mine @ crop.prototypes[:, pixels]).mul_(crop.sign[pixels])
            # Folding saves logarithms, but costs a dozen calls.
            many = signed.numel() > FEW_ELEMENTS
            total += sum_of_softplus(signed) if many else functional.softplus(signed, threshold=SATURATED).sum(dim=1)
    return torch.empty_like(sums).index_copy_(0, order, sums)


def _cropped_gradients(
    gradient: Tensor,
    coefs: Tensor,
    prototypes: Tensor,
    truth: Tensor,
    crops: Tensor,
    image: Tensor,
    target: Tensor,
    valid: Tensor,
) -> tuple[Tensor, Tensor]:
    key, order = _by_object(image, target, valid, crops.shape[1])
    coefs, by_coefs = coefs[order], torch.zeros_like(coefs)
    weighted = coefs * gradient[order, None]
    by_prototypes = fill_zero_(torch.empty_like(prototypes, memory_format=torch.contiguous_format))
    for crop in _crops(prototypes, truth, crops, key):
        mine, by_mine, factors, parts = coefs[crop.rows], by_coefs[crop.rows], weighted[crop.rows].t(), []
        for pixels in crop.pieces():
            there, sign = crop.prototypes[:, pixels], crop.sign[pixels]
            slope = (mine @ there).mul_(sign).sigmoid_().mul_(sign)
            by_mine.addmm_(slope, there.t())
            parts.append(factors @ slope)
        into = by_prototypes[crop.window]
        into += (parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)).view(into.shape)
    return torch.empty_like(by_coefs).index_copy_(0, order, by_coefs * gradient[order, None]), by_prototypes


_INDEX = "Tensor truth, Tensor crops, Tensor image, Tensor target, Tensor valid"
_sums = torch.library.custom_op(
    "boxwright::cropped_mask_sums",
    _cropped_sums,
    mutates_args=(),
    device_types="cpu",
    schema=f"(Tensor coefs, Tensor prototypes, {_INDEX}) -> Tensor",
)
_gradients = torch.library.custom_op(
    "boxwright::cropped_mask_gradients",
    _cropped_gradients,
    mutates_args=(),
    device_types="cpu",
    schema=f"(Tensor gradient, Tensor coefs, Tensor prototypes, {_INDEX}) -> (Tensor, Tensor)",
)


@_sums.register_fake
def _(coefs: Tensor, *_: Tensor) -> Tensor:
    return coefs.new_empty(coefs.shape[0])


@_gradients.register_fake
def _(gradient: Tensor, coefs: Tensor, prototypes: Tensor, *_: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(coefs), prototypes.new_empty(prototypes.shape)


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    by_coefs, by_prototypes = torch.ops.boxwright.cropped_mask_gradients(gradient.contiguous(), *ctx.saved_tensors)
    return by_coefs, by_prototypes, None, None, None, None, None


_sums.register_autograd(_backward, setup_context=_keep)


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
