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


def fill_zero_(fresh: Tensor) -> Tensor:
    """Zeros in a tensor that fills its own memory, as one made by `empty` does; returns it.

    On a CPU by the C library: it writes large blocks without reading them first, four times faster than torch's loop.
    """
    if type(fresh) is not Tensor or fresh.device.type != "cpu" or torch.compiler.is_compiling():
        return fresh.zero_()  # also traced and fake tensors, which have no memory
    ctypes.memset(fresh.data_ptr(), 0, fresh.numel() * fresh.element_size())
    return fresh


class _TakeRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, dense: Tensor, image: Tensor, anchor: Tensor, valid: Tensor) -> Tensor:
        ctx.save_for_backward(dense, image, anchor, valid)
        rows = dense[image, anchor]
        rows = rows.float() if rows.dtype in (torch.float16, torch.bfloat16) else rows
        # An unused slot may point at any cell: its values must not reach a gradient (0 * inf is NaN).
        return torch.where(valid[:, None], rows, rows.new_zeros(()))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        dense, image, anchor, valid = ctx.saved_tensors
        out = fill_zero_(empty_in_memory_order(dense))
        rows = torch.where(valid[:, None], gradient, gradient.new_zeros(())).to(dense.dtype)
        return out.index_put_((image, anchor), rows, accumulate=True), None, None, None
