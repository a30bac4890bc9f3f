# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Elementwise loss mathematics; nothing here reduces over pairs or anchors."""

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from boxwright.ops.chunks import image_chunks
from boxwright.ops.rows import empty_in_memory_order
from boxwright.structures import at_least_float32

SATURATED = 40.0  # beyond this softplus(z) equals z to the last bit of float64
LOG2_E = 1.4426950408889634  # exp2 is several times faster than exp on CPUs, at the same precision
FOLDS = (
    4  # at most 3^4 = 81 factors of at most 2 each meet before a logarithm: 2^81 is far below float32's largest number
)
END_GAP = 0.01  # bins; a distance is clamped this far before the last bin, so that its upper neighbour exists


def bce_with_logits(
    logits: Float[Tensor, "*n"], targets: Float[Tensor, "*n"], pos_weight: float = 1.0
) -> Float[Tensor, "*n"]:
    """Binary cross-entropy of each logit; `pos_weight` scales the positive half only.

    >>> round(bce_with_logits(torch.tensor(0.0), torch.tensor(1.0)).item(), 4)
    0.6931
    """
    positive = functional.softplus(-logits, threshold=SATURATED)
    negative = functional.softplus(logits, threshold=SATURATED)
    return pos_weight * targets * positive + (1 - targets) * negative


def distribution_focal(logits: Float[Tensor, "*n side_bins"], distances: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n"]:
    """Cross-entropy with the two bins around each distance (in bins), mean over the four sides.

    >>> round(distribution_focal(torch.zeros(4 * 2), torch.full((4,), 0.5)).item(), 4)
    0.6931

    Source: Generalized Focal Loss, Li et al. 2020, arXiv:2006.04388, eq. 6.
    """
    num_bins = logits.shape[-1] // 4
    distances = distances.clamp(0, num_bins - 1 - END_GAP)
    low = distances.floor()
    share, bins = distances - low, torch.stack((low, low + 1), dim=-1).long()
    log_p = torch.unflatten(logits, -1, (4, num_bins)).log_softmax(dim=-1)
    at_low, at_high = log_p.gather(-1, bins).unbind(dim=-1)
    return -((1 - share) * at_low + share * at_high).mean(dim=-1)


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
        values = torch.cat([_sum_of_softplus(at_least_float32(logits[chunk])) for chunk in _chunks(logits)])
        matched = at_least_float32(logits[image, anchor, label])
        gain = torch.where(soft != 0, soft * matched, torch.zeros_like(matched)).to(values.dtype)
        return values.index_put_((image, anchor), -gain, accumulate=True)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        logits, image, anchor, label, soft = ctx.saved_tensors
        out = empty_in_memory_order(logits)
        for chunk in _chunks(logits):
            out[chunk] = torch.sigmoid(at_least_float32(logits[chunk])).mul_(gradient[chunk, :, None])
        correction = torch.where(soft != 0, -soft * gradient[image, anchor], torch.zeros_like(soft)).to(out.dtype)
        return out.index_put_((image, anchor, label), correction, accumulate=True), None, None, None, None


def _sum_of_softplus(logits: Tensor) -> Tensor:
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


def _chunks(logits: Tensor) -> list[slice]:
    batch, anchors, classes = logits.shape
    return image_chunks([anchors * classes] * batch, logits.device)
