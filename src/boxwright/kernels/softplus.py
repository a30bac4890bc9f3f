# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Sums of softplus with few logarithms, binary cross-entropy summed over classes, powers by multiplication."""

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.autograd.function import once_differentiable

from boxwright.kernels.chunks import CACHE_ELEMENTS, image_chunks, pieces
from boxwright.kernels.rows import empty_in_memory_order
from boxwright.structures import at_least_float32

LOG2_E = 1.4426950408889634  # exp2 is several times faster than exp on CPUs, at the same precision
FOLDS = (
    4  # at most 3^4 = 81 factors of at most 2 each meet before a logarithm: 2^81 is far below float32's largest number
)


def power(base: Float[Tensor, "*n"], exponent: float) -> Float[Tensor, "*n"]:
    """base^exponent in new memory, base >= 0; by multiplication for the exponents in use: several times faster.

    >>> [power(torch.tensor(4.0), exponent).item() for exponent in (0.5, 1.5, 2.0, 3.0, 6.0)]
    [2.0, 8.0, 16.0, 64.0, 4096.0]
    """
    if exponent in (2.0, 6.0):
        square = base * base
        return square if exponent == 2.0 else square * square * square
    if exponent in (0.5, 1.5):
        root = base.sqrt()
        return root if exponent == 0.5 else root.mul_(base)
    return base**exponent


def sum_of_softplus(logits: Float[Tensor, "*n C"]) -> Float[Tensor, "*n"]:
    """softplus(z) = max(z, 0) + log(1 + exp(-|z|)), summed over the last axis with few logarithms.

    log(1 + a) + log(1 + b) = log(1 + (a + b + a b)): folding pairs of classes before the logarithm adds only positive
    numbers, so nothing cancels and small exponentials keep their precision, unlike in a product of (1 + a).
    """
    terms = logits.abs().mul_(-LOG2_E).exp2_()
    for _ in range(FOLDS):
        half, odd = divmod(terms.shape[-1], 2)
        if half == 0:
            break
        head, tail = terms[..., :half], terms[..., half : 2 * half]
        head.addcmul_(head, tail).add_(tail)
        if odd:
            extra = terms[..., -1:]
            head[..., :1].addcmul_(head[..., :1], extra).add_(extra)
        terms = head
    return terms.log1p_().sum(dim=-1).add_(logits.clamp(min=0).sum(dim=-1))


def class_chunks(logits: Float[Tensor, "B A C"]) -> list[slice]:
    """Images to work on at once, so that their logits stay in the processor's cache."""
    batch, anchors, classes = logits.shape
    return image_chunks([anchors * classes] * batch, logits.device)


def sparse_bce(
    logits: Float[Tensor, "B A C"],
    image: Int64[Tensor, " P"],
    anchor: Int64[Tensor, " P"],
    label: Int64[Tensor, " P"],
    soft: Float[Tensor, " P"],
) -> Float[Tensor, "B A"]:
    """Binary cross-entropy summed over each anchor's classes, for targets that are `soft` at P entries and 0 elsewhere.

    The dense target never exists: the sum of softplus(z) over all logits, minus soft * z at the P entries; the gradient
    is sigmoid(z) with P corrections. Entries with soft = 0 are left out, so they may point anywhere. Computed in at
    least float32 and in the memory order of `logits`.

    >>> zero = torch.zeros(1, dtype=torch.int64)
    >>> sparse_bce(torch.zeros(1, 1, 2), zero, zero, zero, torch.ones(1)).item() == 2 * torch.tensor(2.0).log().item()
    True
    """
    values: Tensor = _SparseBce.apply(logits, image, anchor, label, soft)  # type: ignore[no-untyped-call]
    return values


class _SparseBce(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, image: Tensor, anchor: Tensor, label: Tensor, soft: Tensor) -> Tensor:
        ctx.save_for_backward(logits, image, anchor, label, soft)
        values = at_least_float32(logits[:0, :0, :1]).new_empty(logits.shape[:2])
        for block in _blocks(logits):
            values[block] = sum_of_softplus(at_least_float32(logits[block]))
        matched = at_least_float32(logits[image, anchor, label])
        gain = torch.where(soft != 0, soft * matched, torch.zeros_like(matched)).to(values.dtype)
        return values.index_put_((image, anchor), -gain, accumulate=True)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        logits, image, anchor, label, soft = ctx.saved_tensors
        out = empty_in_memory_order(logits)
        for block in _blocks(logits):
            _write_slope(out[block], logits[block], gradient[block][..., None])
        correction = torch.where(soft != 0, -soft * gradient[image, anchor], torch.zeros_like(soft)).to(out.dtype)
        return out.index_put_((image, anchor, label), correction, accumulate=True), None, None, None, None


def sum_of_bce(logits: Float[Tensor, "*n C"], targets: Float[Tensor, "*n C"]) -> Float[Tensor, "*n"]:
    """Binary cross-entropy summed over the last axis; the targets are constants.

    >>> round(sum_of_bce(torch.zeros(3), torch.ones(3)).item(), 4)
    2.0794
    """
    values: Tensor = _SumOfBce.apply(logits, targets)  # type: ignore[no-untyped-call]
    return values


class _SumOfBce(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        ctx.save_for_backward(logits, targets)
        # No product with a target of 0, where the logit may be infinite.
        hit = torch.where(targets != 0, targets * logits, logits.new_zeros(()))
        return sum_of_softplus(logits).sub_(hit.sum(dim=-1))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        logits, targets = ctx.saved_tensors
        return torch.sigmoid(logits).sub_(targets).mul_(gradient[..., None]), None


def _write_slope(out: Tensor, logits: Tensor, gradient: Tensor) -> None:
    """Sigmoid times the gradient, computed in at least float32; straight into `out` where its type allows it."""
    if out.dtype in (torch.float16, torch.bfloat16) or torch.compiler.is_compiling():
        out.copy_(torch.sigmoid(at_least_float32(logits)).mul_(gradient))
    else:
        torch.sigmoid(logits, out=out).mul_(gradient)


def _blocks(logits: Tensor) -> list[tuple[slice, slice]]:
    """Images, or candidates of a single image, to work on at once."""
    batch, anchors, classes = logits.shape
    if batch == 1:
        rows = max(CACHE_ELEMENTS // max(classes, 1), 1)
        return [(slice(None), part) for part in pieces(anchors, logits.device, rows)]
    return [(chunk, slice(None)) for chunk in class_chunks(logits)]
