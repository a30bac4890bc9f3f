# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Distributions over distances of matched candidates: one softmax serves their mean and their cross-entropy.

All is computed in planes, one for each bin, as a head's maps lie in memory; gradients are written once, in closed form.
`ops/distances.expected_distance` and `losses/functional.distribution_focal` are the same by autograd.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from boxwright.kernels.chunks import pieces

LOG2_E = 1.4426950408889634  # exp2 is several times faster than exp on CPUs, at the same precision
END_GAP = 0.01  # bins; a distance is clamped this far before the last bin, so that its upper neighbour exists
CACHE_ENTRIES = 1 << 17  # logits worked on at once: with what is made of them they stay in a core's own cache


class Bins(NamedTuple):
    """Exponentials of the bins of each side, without gradient."""

    weights: Float[Tensor, "4 R P"]  # exp(logit - peak)
    total: Float[Tensor, "4 P"]  # sum of the weights
    peak: Float[Tensor, "4 P"]  # largest logit

    @classmethod
    def of(cls, logits: Float[Tensor, "P side_bins"]) -> "Bins":
        """The bins of raw rows, ordered side by side."""
        planes = _planes(logits.detach())
        peak, weights = torch.amax(planes, dim=1), planes.new_empty(planes.shape)
        for some in _pieces(planes):
            torch.sub(planes[..., some], peak[:, None, some], out=weights[..., some])
            weights[..., some].mul_(LOG2_E).exp2_()
        return cls(weights, weights.sum(dim=1), peak)


def mean_distance(logits: Float[Tensor, "P side_bins"], bins: Bins) -> Float[Tensor, "P 4"]:
    """Mean of the distribution over distances 0, 1, ... R - 1 of each side.

    >>> logits = torch.zeros(1, 4 * 3)
    >>> mean_distance(logits, Bins.of(logits)).tolist()
    [[1.0, 1.0, 1.0, 1.0]]

    Source: Generalized Focal Loss, Li et al. 2020, arXiv:2006.04388, section 3.2.
    """
    mean: Tensor = _Mean.apply(logits, *bins)  # type: ignore[no-untyped-call]
    return mean


def distance_cross_entropy(
    logits: Float[Tensor, "P side_bins"], bins: Bins, distances: Float[Tensor, "P 4"]
) -> Float[Tensor, " P"]:
    """Cross-entropy with the two bins around each distance (in bins; constants), mean over the four sides.

    >>> logits = torch.zeros(1, 4 * 2)
    >>> round(distance_cross_entropy(logits, Bins.of(logits), torch.full((1, 4), 0.5)).item(), 4)  # ln 2
    0.6931

    Source: Generalized Focal Loss, Li et al. 2020, arXiv:2006.04388, eq. 6.
    """
    values: Tensor = _CrossEntropy.apply(logits, *bins, distances)  # type: ignore[no-untyped-call]
    return values


def _planes(logits: Tensor) -> Tensor:
    return torch.unflatten(logits.t(), 0, (4, -1))


def _pieces(planes: Tensor) -> list[slice]:
    """Pairs to work on at once."""
    return pieces(planes.shape[2], planes.device, CACHE_ENTRIES // max(planes.shape[0] * planes.shape[1], 1) or 1)


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, weights: Tensor, total: Tensor, peak: Tensor) -> Tensor:
        moment = torch.matmul(_numbers(weights), weights)
        mean = moment / total
        ctx.save_for_backward(weights, total, mean)
        return mean.t()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        weights, total, mean = ctx.saved_tensors
        slope = gradient.t() / total
        shift, numbers, out = mean * -slope, _numbers(weights)[:, None], torch.empty_like(weights)
        for some in _pieces(weights):  # weight * (bin - mean) * slope
            inner = torch.addcmul(shift[:, None, some], numbers, slope[:, None, some])
            torch.mul(inner, weights[..., some], out=out[..., some])
        return out.flatten(0, 1).t(), None, None, None


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, weights: Tensor, total: Tensor, peak: Tensor, distances: Tensor) -> Tensor:
        planes = _planes(logits)
        place = distances.t().clamp(0, planes.shape[1] - 1 - END_GAP)
        low = place.floor()
        share, first = place - low, low.long()[:, None]
        at_low, at_high = (planes.gather(1, bins)[:, 0] - peak for bins in (first, first + 1))
        ctx.save_for_backward(weights, total, first, share)
        return (total.log() - torch.lerp(at_low, at_high, share)).mean(dim=0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        weights, total, first, share = ctx.saved_tensors
        by_side = gradient / 4
        out, slope = torch.empty_like(weights), by_side / total
        for some in _pieces(weights):
            torch.mul(weights[..., some], slope[:, None, some], out=out[..., some])
        high = (share * by_side)[:, None]
        out.scatter_add_(1, first, high - by_side).scatter_add_(1, first + 1, -high)
        return out.flatten(0, 1).t(), None, None, None, None


def _numbers(weights: Tensor) -> Tensor:
    return torch.arange(weights.shape[1], dtype=weights.dtype, device=weights.device)
