# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Binary cross-entropy of whole rows of logits with one label each: no dense target, one gradient, in cache."""

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.autograd.function import once_differentiable

from boxwright.kernels.chunks import pieces
from boxwright.kernels.softplus import sum_of_softplus

CACHE_ENTRIES = 1 << 17  # logits worked on at once: with what is made of them they stay in a core's own cache


def label_bce(logits: Float[Tensor, "P C"], label: Int64[Tensor, " P"], smoothing: float = 0.0) -> Float[Tensor, " P"]:
    """Cross-entropy summed over classes; the target is 1 - smoothing / 2 at the label and smoothing / 2 elsewhere.

    Linear in the target: the sum of softplus(z), less the logits times their targets.

    >>> round(label_bce(torch.zeros(1, 2), torch.tensor([1])).item(), 4)  # 2 ln 2
    1.3863
    """
    values: Tensor = _LabelBce.apply(logits, label, smoothing)  # type: ignore[no-untyped-call]
    return values


class _LabelBce(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, label: Tensor, smoothing: float) -> Tensor:
        ctx.save_for_backward(logits, label)
        ctx.smoothing = smoothing
        values = logits.gather(1, label[:, None])[:, 0].mul_(smoothing - 1)
        for rows in _rows(logits):
            values[rows] += sum_of_softplus(logits[rows])
        return values.sub_(logits.sum(dim=1), alpha=smoothing / 2) if smoothing else values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        logits, label = ctx.saved_tensors
        out = torch.empty_like(logits, memory_format=torch.contiguous_format)
        hit = out.new_full((len(label), 1), ctx.smoothing - 1)
        for rows in _rows(logits):
            slope = torch.sigmoid(logits[rows], out=out[rows])
            if ctx.smoothing:
                slope.sub_(ctx.smoothing / 2)
            slope.scatter_add_(1, label[rows, None], hit[rows]).mul_(gradient[rows, None])
        return out, None, None


def _rows(logits: Tensor) -> list[slice]:
    return pieces(len(logits), logits.device, max(CACHE_ENTRIES // max(logits.shape[1], 1), 1))
