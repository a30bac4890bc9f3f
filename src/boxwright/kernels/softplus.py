# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Sums of softplus with few logarithms, powers by multiplication, and the pieces of logits that fit a cache."""

from jaxtyping import Float
from torch import Tensor

from boxwright.kernels.chunks import image_chunks

SATURATED = 40.0  # beyond this softplus(z) equals z to the last bit of float64
LOG2_E = 1.4426950408889634  # exp2 is several times faster than exp on CPUs, at the same precision
FOLDS = (
    4  # at most 3^4 = 81 factors of at most 2 each meet before a logarithm: 2^81 is far below float32's largest number
)


def power(base: Float[Tensor, "*n"], exponent: float) -> Float[Tensor, "*n"]:
    """base^exponent in new memory, base >= 0; by multiplication for the exponents in use: several times faster.

    >>> import torch
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
