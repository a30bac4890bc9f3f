# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Matched rows and the objectness plane of a head's table, with one gradient that is written once."""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.autograd.function import once_differentiable

from boxwright.kernels.chunks import pieces
from boxwright.kernels.rows import fill_zero_
from boxwright.structures import at_least_float32

CACHE_ROWS = 1 << 10  # joined rows that are added at once: they stay in a core's cache


def take_matched(
    table: Float[Tensor, "B A columns"],
    image: Int64[Tensor, " P"],
    anchor: Int64[Tensor, " P"],
    valid: Bool[Tensor, " P"] | None,
    widths: tuple[int, ...],
    plane: int | None = None,
) -> tuple[Tensor, ...]:
    """table[image, anchor] cut into parts of some widths, and, last, the whole column `plane` when one is named.

    At least float32; zeros, and no gradient, where not valid (None: all are). Rows may repeat. The gradient of the
    table is zeros, the plane and the rows: every other entry is touched once.

    >>> table = torch.tensor([[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]])
    >>> one = torch.tensor([0])
    >>> [part.tolist() for part in take_matched(table, one, one + 1, one == 0, (2, 1), plane=2)]
    [[[4.0, 5.0]], [[6.0]], [[3.0, 6.0]]]
    """
    parts: tuple[Tensor, ...] = _TakeMatched.apply(table, image, anchor, valid, widths, plane)  # type: ignore[no-untyped-call]
    return parts


class _TakeMatched(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        table: Tensor,
        image: Tensor,
        anchor: Tensor,
        valid: Tensor | None,
        widths: tuple[int, ...],
        plane: int | None,
    ) -> tuple[Tensor, ...]:
        ctx.save_for_backward(image, anchor, valid)
        ctx.shape, ctx.dtype, ctx.plane, ctx.widths = table.shape, table.dtype, plane, widths
        batch, anchors, _ = table.shape
        if table.stride(0) == anchors * table.stride(1) or batch == 1:
            # A view; several times faster than indexing by two tensors. Parts are cut before the rows are read.
            rows, place = torch.flatten(table, 0, 1), image * anchors + anchor
            found = [part.index_select(0, place) for part in torch.split(rows, list(widths), dim=1)]
        else:
            found = list(torch.split(table[image, anchor], list(widths), dim=1))
        parts = tuple(at_least_float32(part.contiguous()) for part in found)
        if valid is not None:
            # An unused slot may point at any candidate: its values must not reach a gradient (0 * inf is NaN).
            parts = tuple(torch.where(valid[:, None], part, torch.zeros_like(part)) for part in parts)
        return parts if plane is None else (*parts, at_least_float32(table[..., plane].contiguous()))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        image, anchor, valid = ctx.saved_tensors
        batch, anchors, columns = ctx.shape
        parts = gradients[: len(ctx.widths)]
        if valid is not None:
            parts = tuple(torch.where(valid[:, None], part, torch.zeros_like(part)) for part in parts)
        out = fill_zero_(torch.empty(batch * anchors, columns, dtype=ctx.dtype, device=image.device))
        if ctx.plane is not None:
            out[:, ctx.plane] = gradients[-1].reshape(-1)
        place = image * anchors + anchor
        for some in pieces(len(place), place.device, CACHE_ROWS):
            out.index_add_(0, place[some], torch.cat([part[some] for part in parts], dim=1).to(ctx.dtype))
        return out.view(ctx.shape), None, None, None, None, None
