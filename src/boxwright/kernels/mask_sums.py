# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The mask loss of matched pairs, summed over the pixels of each pair's crop: cropped before the product.

Two forms of one sum. On a CPU pairs are grouped by object, whose pairs share one crop: only pixels in a crop are ever
computed. How many pairs an object got is then read from the assignment, which on a CPU waits for nobody; the form is
one opaque operation, so that tracers need no value. On an accelerator nothing may be read, so all shapes come from P
and the prototypes (`mask_tiles.py`).
Neither keeps a tensor of (pairs, h, w). On a CPU the slopes of the pixels in crops are kept where they are few enough;
else, and in traced graphs, the backward pass computes the logits again.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int32, Int64
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from boxwright.kernels.mask_tiles import tiled_mask_sums as tiled_mask_sums
from boxwright.kernels.rows import fill_zero_, readable
from boxwright.kernels.softplus import sum_of_softplus
from boxwright.ops.scores import SATURATED

FEW_ELEMENTS = 1 << 16  # of an object's mask logits: below this the number of operations counts, not their size
CROP_ELEMENTS = 1 << 18  # mask logits of an object computed at once on a CPU: they stay in a core's cache
KEPT_ELEMENTS = 1 << 24  # mask logits of a batch whose slopes wait for the backward pass: 64 MiB of float32


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
    if coefs.device.type != "cpu":
        return tiled_mask_sums(coefs, prototypes, truth, crops, image, target, valid)
    sums: Tensor
    if not readable(coefs):
        sums = torch.ops.boxwright.cropped_mask_sums(coefs, prototypes, truth, crops, image, target, valid)
    else:
        sums = _Cropped.apply(coefs, prototypes, truth, crops, image, target, valid)  # type: ignore[no-untyped-call]
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
        sign = seen.reshape(-1).to(prototypes.dtype).mul_(-2).add_(1)
        yield _Crop(slice(first, end), prototypes[window].flatten(1), sign, window)


class _Slopes(NamedTuple):
    """Derivatives of a crop's sums by its mask logits."""

    rows: slice
    window: tuple[int, slice, slice, slice]
    values: list[Tensor]  # (k, n) of each piece


def _costs(signed: Tensor) -> Tensor:
    """Sum of softplus over each row. Folding saves logarithms, but costs a dozen calls."""
    if signed.numel() > FEW_ELEMENTS:
        return sum_of_softplus(signed)
    return functional.softplus(signed, threshold=SATURATED).sum(dim=1)


def _cropped_sums(
    coefs: Tensor, prototypes: Tensor, truth: Tensor, crops: Tensor, image: Tensor, target: Tensor, valid: Tensor
) -> Tensor:
    key, order = _by_object(image, target, valid, crops.shape[1])
    coefs, sums = coefs[order], coefs.new_zeros(len(coefs))
    for crop in _crops(prototypes, truth, crops, key):
        mine, total = coefs[crop.rows], sums[crop.rows]
        for pixels in crop.pieces():
            total += _costs((mine @ crop.prototypes[:, pixels]).mul_(crop.sign[pixels]))
    return torch.empty_like(sums).index_copy_(0, order, sums)


class _Cropped(torch.autograd.Function):
    """One product of coefficients and prototypes for both passes, as long as the slopes of all crops are few."""

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
        ctx.slopes = None
        ctx.arguments = (truth, crops, image, target, valid)
        if not any(ctx.needs_input_grad) or _logits(crops, image, target, valid) > KEPT_ELEMENTS:
            ctx.save_for_backward(coefs, prototypes)
            return _cropped_sums(coefs, prototypes, *ctx.arguments)
        key, order = _by_object(image, target, valid, crops.shape[1])
        ordered, slopes = coefs[order], []
        sums, by_coefs = coefs.new_zeros(len(coefs)), torch.zeros_like(ordered)
        for crop in _crops(prototypes, truth, crops, key):
            mine, total, by_mine, parts = ordered[crop.rows], sums[crop.rows], by_coefs[crop.rows], []
            for pixels in crop.pieces():
                there, sign = crop.prototypes[:, pixels], crop.sign[pixels]
                signed = (mine @ there).mul_(sign)
                total += _costs(signed)
                slope = signed.sigmoid_().mul_(sign)
                by_mine.addmm_(slope, there.t())
                parts.append(slope)
            slopes.append(_Slopes(crop.rows, crop.window, parts))
        ctx.slopes = slopes
        ctx.save_for_backward(ordered, prototypes, order, by_coefs)
        return torch.empty_like(sums).index_copy_(0, order, sums)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.slopes is None:
            return *_cropped_gradients(gradient, *ctx.saved_tensors, *ctx.arguments), *[None] * 5
        ordered, prototypes, order, by_coefs = ctx.saved_tensors
        weights = gradient[order, None]
        weighted = (ordered * weights).t()
        by_prototypes = fill_zero_(torch.empty_like(prototypes, memory_format=torch.contiguous_format))
        for rows, window, parts in ctx.slopes:
            _add(by_prototypes, window, [weighted[:, rows] @ slope for slope in parts])
        return torch.empty_like(by_coefs).index_copy_(0, order, by_coefs * weights), by_prototypes, *[None] * 5


def _logits(crops: Tensor, image: Tensor, target: Tensor, valid: Tensor) -> int:
    """Mask logits inside the crops of all pairs."""
    left, top, right, bottom = crops.unbind(dim=-1)
    pixels = ((right - left).clamp(min=0) * (bottom - top).clamp(min=0))[image, target]
    return int(torch.where(valid, pixels, 0).sum())


def _add(prototypes: Tensor, window: tuple[int, slice, slice, slice], parts: list[Tensor]) -> None:
    """Adds the pieces of a crop to the gradient of all prototypes."""
    into = prototypes[window]
    into += (parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)).view(into.shape)


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
        _add(by_prototypes, crop.window, parts)
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
