# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Overlap of paired oriented boxes, each read as a Gaussian: probIoU."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

EPSILON = 1e-7  # part of the definition, spec/losses B.3; in the fourth power of the boxes' unit where it has one
FARTHEST = 100.0  # Bhattacharyya distance beyond which nothing changes


class GaussianPlanes(NamedTuple):
    """Oriented boxes by number: centre, variances along and across, cosine and sine of twice the angle, and spread.

    `along` is the larger variance. So the determinant of a sum of two covariances is a sum of what never cancels:
    (along1 + along2)(across1 + across2) + d1 d2 |e1 - e2|^2 with d half the difference of a box's variances and e
    its (cos, sin); the textbook X Y - Z^2 loses all digits of float32 for long thin boxes.
    """

    cx: Tensor
    cy: Tensor
    along: Tensor
    across: Tensor
    cos: Tensor
    sin: Tensor
    spread: Tensor  # square root of the determinant

    @classmethod
    def of(cls, boxes: Tensor, floor: float = 0.0) -> "GaussianPlanes":
        """Planes of oriented boxes, (*n, 5); `floor` is added to both variances."""
        cx, cy, w, h, theta = boxes.unbind(-1)
        p, q = w * w / 12 + floor, h * h / 12 + floor
        # Without a floor the root of p is known, and has a slope at 0.
        spread = w.abs() * h.abs() / 12 if floor == 0 else p.sqrt() * q.sqrt()
        long = p >= q
        turn = long.to(boxes.dtype).mul_(2).sub_(1)  # the other way round where h is the longer side
        along, across = torch.where(long, p, q), torch.where(long, q, p)
        return cls(cx, cy, along, across, torch.cos(2 * theta) * turn, torch.sin(2 * theta) * turn, spread)

    def take(self, index: Tensor) -> "GaussianPlanes":
        """The boxes at the given positions, an index of any shape, of flat planes."""
        return GaussianPlanes(*(plane.index_select(0, index.view(-1)).view(index.shape) for plane in self))


def paired_probiou(a: Float[Tensor, "*#n 5"], b: Float[Tensor, "*#n 5"], floor: float = 0.0) -> Float[Tensor, "*#n"]:
    """One minus the Hellinger distance of the Gaussians of oriented boxes (cx, cy, w, h, theta), in [0, 1).

    A box has the covariance of a uniform density on it; `floor` is added to both variances, in the boxes' unit squared.
    Equal boxes reach 0.99955, and a distance beyond 100 has no gradient: both are part of the definition.

    >>> box = torch.tensor([0.0, 0.0, 12.0, 12.0, 0.0])
    >>> round(paired_probiou(box, box + torch.tensor([12.0, 0.0, 0.0, 0.0, 0.0])).item(), 4)  # 1 - sqrt(1 - e^-1.5)
    0.1186

    Source: Gaussian bounding boxes and probabilistic IoU, Llerena et al. 2021, arXiv:2106.06072.
    """
    return probiou_of_planes(GaussianPlanes.of(a, floor), GaussianPlanes.of(b, floor))


def probiou_of_planes(a: GaussianPlanes, b: GaussianPlanes) -> Tensor:
    """The kernel of `paired_probiou`, on planes."""
    dx, dy = a.cx - b.cx, a.cy - b.cy
    along, across = a.along + b.along, a.across + b.across
    half_a, half_b = (a.along - a.across) / 2, (b.along - b.across) / 2
    turn_cos, turn_sin = a.cos - b.cos, a.sin - b.sin
    turned = half_a * half_b * (turn_cos * turn_cos + turn_sin * turn_sin)
    determinant = along * across + turned
    # The quadratic form of the offset: X dy^2 + Y dx^2 - 2 Z dx dy, written with the doubled angle.
    cos, sin = half_a * a.cos + half_b * b.cos, half_a * a.sin + half_b * b.sin
    mean = (along + across) / 2
    form = mean * (dx * dx + dy * dy) - cos * (dx * dx - dy * dy) - 2 * sin * (dx * dy)
    ratio = determinant / (4 * (a.spread * b.spread) + EPSILON)
    distance = 0.25 * form / (determinant + EPSILON) + 0.5 * torch.log(ratio + EPSILON)
    # expm1: most of the digits of 1 - exp(-d) would be lost for small distances.
    return 1 - (EPSILON - torch.expm1(-distance.clamp(EPSILON, FARTHEST))).sqrt()
