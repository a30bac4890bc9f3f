# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""CIoU of anchor-based boxes from the head's raw outputs: value and slope in one sweep over planes.

What autograd would write for `ops/decode.Anchor` followed by `ops/overlap.paired_overlap` in centre format is a hundred
small operations on strided columns. Here both axes share every operation, and the slope is ready before the backward.
"""

import math
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from boxwright.ops.overlap import EPSILON, SMALLEST

QUARTER = 2 / math.pi  # angles are measured in quarter turns


def anchor_ciou(
    raw: Float[Tensor, "P 4"], priors: Float[Tensor, "2 P"], wanted: Float[Tensor, "4 P"]
) -> Float[Tensor, " P"]:
    """CIoU of each decoded box with its partner; its aspect weight is a constant for differentiation.

    Args:
        raw: x, y, w, h before the sigmoid; only they get a gradient.
        priors: planes of width and height, cells.
        wanted: planes of cx, cy, w and h, cells, relative to the corner of the pair's cell.

    >>> same = torch.tensor([[0.5], [0.5], [1.0], [1.0]])
    >>> anchor_ciou(torch.zeros(1, 4), torch.ones(2, 1), same).item()
    1.0

    Source: CIoU, Zheng et al. 2020, arXiv:1911.08287; boxes as in spec/losses E.1.
    """
    values: Tensor = _AnchorCiou.apply(raw, priors, wanted)  # type: ignore[no-untyped-call]
    return values


class _AnchorCiou(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, raw: Tensor, priors: Tensor, wanted: Tensor) -> Tensor:
        double = raw.t().clone(memory_format=torch.contiguous_format).sigmoid_().mul_(2)  # planes (4, P)
        whole = double[2:].square().mul_(priors)
        found = _Sides.of(double[:2] - 0.5, whole.clamp(min=SMALLEST))
        compared = _Compared.of(found, _Sides.of(wanted[:2], wanted[2:]))
        if raw.requires_grad:
            by_centre, by_size = compared.slopes()
            slope = torch.empty_like(double)
            fall = double.mul(-0.5).add_(1)  # 1 - sigmoid
            torch.mul(by_centre, double[:2] * fall[:2], out=slope[:2])
            torch.mul(by_size.masked_fill_(whole < SMALLEST, 0.0), whole.mul_(fall[2:]).mul_(2), out=slope[2:])
            ctx.save_for_backward(slope)
        return compared.value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return (slope * gradient).t(), None, None


class _Sides(NamedTuple):
    """Boxes by axis: planes (2, P), first across, then down."""

    low: Tensor
    high: Tensor
    size: Tensor
    angle: Tensor  # (P,) of the diagonal

    @classmethod
    def of(cls, centre: Tensor, size: Tensor) -> "_Sides":
        half = size / 2
        return cls(centre - half, centre + half, size, torch.atan(size[0] / size[1]).mul_(QUARTER))


class _Compared(NamedTuple):
    """CIoU of boxes with wanted ones, and what its slope needs."""

    value: Tensor  # (P,)
    found: _Sides
    wanted: _Sides
    inside: Tensor  # (2, P) sides of the intersection, negative where there is none
    hull: Tensor  # (2, P) sides of the enclosing box
    gap: Tensor  # (2, P) twice the distance of the centres
    union: Tensor
    iou: Tensor
    diagonal: Tensor  # squared
    distance: Tensor  # squared distance of the centres by the squared diagonal
    turn: Tensor  # difference of the aspect angles
    alpha: Tensor  # weight of its square

    @classmethod
    def of(cls, found: _Sides, wanted: _Sides) -> "_Compared":
        inside = torch.minimum(found.high, wanted.high).sub_(torch.maximum(found.low, wanted.low))
        hull = torch.maximum(found.high, wanted.high).sub_(torch.minimum(found.low, wanted.low))
        gap = (wanted.low + wanted.high).sub_(found.low).sub_(found.high)
        shared = inside.clamp(min=0)
        both = shared[0] * shared[1]
        area = (wanted.size[0] * wanted.size[1]).addcmul_(found.size[0], found.size[1]).add_(EPSILON)
        union = area.sub_(both)
        iou = both.div_(union)
        diagonal = (hull[0] * hull[0]).addcmul_(hull[1], hull[1]).add_(EPSILON)
        distance = (gap[0] * gap[0]).addcmul_(gap[1], gap[1]).div_(diagonal).mul_(0.25)
        turn = wanted.angle - found.angle
        square = turn * turn
        alpha = square / (1 - iou).add_(square).add_(EPSILON)
        value = (iou - distance).sub_(square.mul_(alpha))
        return cls(value, found, wanted, inside, hull, gap, union, iou, diagonal, distance, turn, alpha)

    def slopes(self) -> tuple[Tensor, Tensor]:
        """(2, P) derivatives by centre and by size.

        Where two edges are equal each of them counts half, as in autograd's rule for the smaller of two.
        """
        (width, height), size = self.found.size, self.found.size
        upper = torch.sign(self.wanted.high - self.found.high)  # 1 where moving the edge moves the intersection
        lower = torch.sign(self.found.low - self.wanted.low)
        push = (upper - lower).mul_(0.5)  # of the intersection's side by the centre; the hull's moves the other way
        grow = upper.add_(lower).mul_(0.25).add_(0.5)  # of that side by the size; the hull's has the rest
        other = self.inside.clamp(min=0).flip(0).masked_fill_(self.inside < 0, 0.0)
        gain = other.mul_((1 + self.iou).div_(self.union))
        cost = (self.distance / self.diagonal).mul_(2) * self.hull
        by_centre = push.mul_(gain - cost).add_(self.gap / self.diagonal)
        by_size = gain.sub_(cost).mul_(grow).add_(cost).sub_(size.flip(0).mul_(self.iou / self.union))
        aspect = (self.alpha * self.turn).mul_(2 * QUARTER).div_((width * width).addcmul_(height, height))
        by_size[0].addcmul_(aspect, height)
        by_size[1].addcmul_(aspect, width, value=-1)
        return by_centre, by_size
