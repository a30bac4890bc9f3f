# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Similarity of matched keypoints in planes of (keypoints, pairs), with closed-form gradients that are written once.

`ops/keypoints.keypoint_misses` is the same by autograd, for any shape.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from boxwright.kernels.chunks import pieces
from boxwright.ops.keypoints import AREA_EPSILON

CACHE_ENTRIES = 1 << 16  # keypoints worked on at once: with what is made of them they stay in a core's own cache


class KeypointColumns(NamedTuple):
    """Raw keypoints by coordinate."""

    x: Float[Tensor, "K P"]
    y: Float[Tensor, "K P"]
    seen: Float[Tensor, "K P"] | None  # raw visibility, of heads that have one


def keypoint_columns(raw: Float[Tensor, "P K D"]) -> KeypointColumns:
    """The columns of raw rows, not to be written to; all gradients come back in one tensor.

    >>> keypoint_columns(torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])).x.tolist()
    [[1.0], [3.0]]
    """
    parts: tuple[Tensor, ...] = _Columns.apply(raw)  # type: ignore[no-untyped-call]
    return KeypointColumns(parts[0], parts[1], parts[2] if len(parts) > 2 else None)


def keypoint_miss_sums(
    x: Float[Tensor, "K P"],
    y: Float[Tensor, "K P"],
    origin: Float[Tensor, "2 P"],
    wanted: Float[Tensor, "2 K P"],
    visible: Bool[Tensor, "K P"],
    area: Float[Tensor, " P"],
    sigmas: Float[Tensor, " K"],
    step: float = 1.0,
) -> Float[Tensor, " P"]:
    """One minus the similarity, exp(-d^2 / (2 (2 sigma)^2 area)), summed over the visible keypoints of each pair.

    Args:
        x: raw; the place is origin + step * x. Only x and y get a gradient.
        y: raw.
        origin: of each pair.
        wanted: the labelled places; where not visible they may hold anything.
        visible: which keypoints count.
        area: of each pair's object.
        sigmas: spread of each keypoint.
        step: what a raw value of 1 stands for.

    >>> one, seen = torch.ones(1, 1), torch.ones(1, 1, dtype=torch.bool)
    >>> half, four = torch.tensor([0.5]), torch.tensor([4.0])
    >>> sums = keypoint_miss_sums(2 * one, 0 * one, torch.zeros(2, 1), torch.zeros(2, 1, 1), seen, four, half)
    >>> round(sums.item(), 4)  # 1 - exp(-4 / (2 * 1 * 4))
    0.3935

    Source: COCO object keypoint similarity, Ronchi and Perona 2017, arXiv:1707.05388.
    """
    sums: Tensor = _MissSums.apply(x, y, origin, wanted, visible, area, sigmas, step)  # type: ignore[no-untyped-call]
    return sums


class _Columns(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, raw: Tensor) -> tuple[Tensor, ...]:
        ctx.shape = raw.shape
        return tuple(raw.movedim(0, -1).contiguous().unbind(dim=1))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        pairs, count, _ = ctx.shape
        return torch.stack(gradients, dim=1).view(count, len(gradients), pairs).movedim(-1, 0)


class _MissSums(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        y: Tensor,
        origin: Tensor,
        wanted: Tensor,
        visible: Tensor,
        area: Tensor,
        sigmas: Tensor,
        step: float,
    ) -> Tensor:
        by_pair, by_keypoint = 1 / (area + AREA_EPSILON), 1 / (8 * sigmas * sigmas)[:, None]
        sums, slopes = torch.empty_like(area), x.new_empty((2, *x.shape))
        for some in pieces(x.shape[1], x.device, max(CACHE_ENTRIES // max(len(x), 1), 1)):
            # Cut off before the square, and no product: a label that is not visible may hold anything.
            hidden = ~visible[:, some]
            gaps = [
                torch.add(origin[axis, some] - wanted[axis, :, some], raw[:, some], alpha=step).masked_fill_(
                    hidden, 0.0
                )
                for axis, raw in enumerate((x, y))
            ]
            inverse = by_keypoint * by_pair[some]
            similar = (gaps[0] * gaps[0]).addcmul_(gaps[1], gaps[1]).mul_(inverse).neg_().expm1_()
            sums[some] = -similar.sum(dim=0)
            slope = inverse.mul_(similar.add_(1)).mul_(2 * step)
            for axis, gap in enumerate(gaps):
                torch.mul(gap, slope, out=slopes[axis, :, some])
        ctx.save_for_backward(slopes)
        return sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (slopes,) = ctx.saved_tensors
        across, down = (slopes * gradient).unbind(dim=0)
        return across, down, *[None] * 6
