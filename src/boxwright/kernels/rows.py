# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Chosen rows of a dense tensor, with a gradient that is written once, in the dense tensor's own memory order."""

import ctypes
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.autograd.function import once_differentiable

from boxwright.structures import Assignment, Targets


def take_rows(
    dense: Float[Tensor, "B A n"], image: Int64[Tensor, " P"], anchor: Int64[Tensor, " P"], valid: Bool[Tensor, " P"]
) -> Float[Tensor, "P n"]:
    """dense[image, anchor] in at least float32; zeros, and no gradient, where not valid. Rows may repeat.

    >>> dense = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    >>> take_rows(dense, torch.tensor([0, 0]), torch.tensor([1, 0]), torch.tensor([True, False])).tolist()
    [[3.0, 4.0], [0.0, 0.0]]
    """
    rows: Tensor = _TakeRows.apply(dense, image, anchor, valid)  # type: ignore[no-untyped-call]
    return rows


def slot_of(pairs: Assignment, targets: Targets) -> Int64[Tensor, " P"]:
    """Row of each pair's object, image * M + target, in targets whose first two axes are joined."""
    return pairs.image * targets.labels.shape[1] + pairs.target


def planes_at(table: Float[Tensor, "N n"], index: Int64[Tensor, " P"]) -> Float[Tensor, "n P"]:
    """table[index] in planes, for tables of few columns: several times faster than rows of a few numbers.

    >>> planes_at(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([1, 1, 0])).tolist()
    [[3.0, 3.0, 1.0], [4.0, 4.0, 2.0]]
    """
    return torch.stack([column.index_select(0, index) for column in table.unbind(dim=1)])


def empty_in_memory_order(dense: Tensor) -> Tensor:
    """An empty (B, A, n) tensor stored by channel when `dense` is, so that its gradient needs no transposed copy."""
    if dense.stride(-1) != 1 and dense.stride(-2) == 1:
        batch, anchors, channels = dense.shape
        return dense.new_empty((batch, channels, anchors)).transpose(1, 2)
    return torch.empty_like(dense, memory_format=torch.contiguous_format)


def readable(tensor: Tensor) -> bool:
    """Whether values may be read at once: an ordinary tensor of the CPU, not one that is traced or fake."""
    return type(tensor) is Tensor and tensor.device.type == "cpu" and not torch.compiler.is_compiling()


def fill_zero_(fresh: Tensor) -> Tensor:
    """Zeros in a tensor that fills its own memory, as one made by `empty` does; returns it.

    On a CPU by the C library: it writes large blocks without reading them first, four times faster than torch's loop.
    """
    if not readable(fresh):
        return fresh.zero_()
    ctypes.memset(fresh.data_ptr(), 0, fresh.numel() * fresh.element_size())
    return fresh


class _TakeRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, dense: Tensor, image: Tensor, anchor: Tensor, valid: Tensor) -> Tensor:
        ctx.save_for_backward(dense, image, anchor, valid)
        if _in_planes(dense):
            base, rows = _places(dense, image, anchor), dense.new_empty((dense.shape[2], len(image))).t()
            for plane, values in zip(_planes(dense), rows.t(), strict=True):
                torch.index_select(plane, 0, base, out=values)
        else:
            rows = dense[image, anchor]
        rows = rows.float() if rows.dtype in (torch.float16, torch.bfloat16) else rows
        # An unused slot may point at any cell: its values must not reach a gradient (0 * inf is NaN).
        return rows if _all(valid) else torch.where(valid[:, None], rows, rows.new_zeros(()))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        dense, image, anchor, valid = ctx.saved_tensors
        out = fill_zero_(empty_in_memory_order(dense))
        rows = gradient if _all(valid) else torch.where(valid[:, None], gradient, gradient.new_zeros(()))
        if not _in_planes(dense):
            return out.index_put_((image, anchor), rows.to(dense.dtype), accumulate=True), None, None, None
        base = _places(out, image, anchor)
        for plane, values in zip(_planes(out), rows.t().to(dense.dtype).contiguous(), strict=True):
            plane.scatter_add_(0, base, values)
        return out, None, None, None


def _all(valid: Tensor) -> bool:
    return readable(valid) and bool(valid.all())


def _in_planes(dense: Tensor) -> bool:
    """Whether rows are read and written plane by plane, as a head's maps lie in memory: neighbours stay neighbours."""
    _, anchors, channels = dense.shape
    by_image, by_anchor, by_channel = dense.stride()
    in_planes = by_anchor == 1 and by_channel >= anchors and by_image >= by_channel * channels
    return readable(dense) and dense.numel() > 0 and channels > 1 and in_planes


def _planes(dense: Tensor) -> list[Tensor]:
    """One flat view of the memory for each channel, so that one index serves all."""
    (batch, anchors, channels), (by_image, _, by_channel) = dense.shape, dense.stride()
    flat = dense.as_strided(((batch - 1) * by_image + (channels - 1) * by_channel + anchors,), (1,))
    return [flat[channel * by_channel :] for channel in range(channels)]


def _places(dense: Tensor, image: Tensor, anchor: Tensor) -> Tensor:
    """Where each row's entry of the first channel lies."""
    return torch.add(anchor, image, alpha=dense.stride(0))
