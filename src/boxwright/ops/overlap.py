# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Overlap of paired boxes: IoU, GIoU, DIoU and CIoU by one kernel that broadcasts."""

import math
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from boxwright.ops.boxes import cxcywh_to_xyxy

OverlapName = Literal["iou", "giou", "diou", "ciou"]
BoxFormat = Literal["xyxy", "cxcywh"]

SMALLEST = 1e-12  # cells; a side that underflows to 0 would make the aspect ratio 0 / 0
EPSILON = 1e-7  # in the unit of the boxes (squared for areas); part of the definition, spec/losses B.2


class BoxPlanes(NamedTuple):
    """Boxes by coordinate: corners and, for CIoU, the aspect angle, so that many pairs share one arc tangent."""

    x1: Tensor
    y1: Tensor
    x2: Tensor
    y2: Tensor
    angle: Tensor | None

    @classmethod
    def of(cls, boxes: Tensor, overlap: OverlapName) -> "BoxPlanes":
        """Planes of corner boxes, (*n, 4)."""
        x1, y1, x2, y2 = boxes.unbind(-1)
        angle = _angle(x2 - x1, y2 - y1 + EPSILON) if overlap == "ciou" else None
        return cls(x1, y1, x2, y2, angle)

    def take(self, index: Tensor) -> "BoxPlanes":
        """The boxes at the given positions, an index of any shape, of flat planes."""
        x1, y1, x2, y2 = (plane.index_select(0, index.view(-1)).view(index.shape) for plane in self[:4])
        angle = None if self.angle is None else self.angle.index_select(0, index.view(-1)).view(index.shape)
        return BoxPlanes(x1, y1, x2, y2, angle)

    @property
    def sides(self) -> tuple[Tensor, Tensor]:
        """Width, and height with the epsilon that the corner format's definition adds."""
        return self.x2 - self.x1, self.y2 - self.y1 + EPSILON


def paired_overlap(
    a: Float[Tensor, "*#n 4"], b: Float[Tensor, "*#n 4"], overlap: OverlapName = "iou", box_format: BoxFormat = "xyxy"
) -> Float[Tensor, "*#n"]:
    """Overlap of each box of `a` with its partner in `b`; both in one unit, leading axes broadcast.

    Corner heights carry an epsilon, centre sizes do not; both are part of the definition. CIoU's weight of the aspect
    term is a constant for differentiation.

    >>> a, b = torch.tensor([0.0, 0.0, 10.0, 10.0]), torch.tensor([5.0, 5.0, 15.0, 15.0])
    >>> [round(paired_overlap(a, b, name).item(), 4) for name in ("iou", "giou", "diou")]
    [0.1429, -0.0794, 0.0317]

    Source: GIoU arXiv:1902.09630; DIoU and CIoU arXiv:1911.08287.
    """
    if box_format == "xyxy":
        planes = BoxPlanes.of(a, overlap), BoxPlanes.of(b, overlap)
        return overlap_of_planes(*planes, overlap, planes[0].sides, planes[1].sides)
    sides = [(boxes[..., 2], boxes[..., 3]) for boxes in (a, b)]
    corners = [BoxPlanes.of(cxcywh_to_xyxy(boxes), "iou") for boxes in (a, b)]
    first, second = (planes._replace(angle=_angle(w, h)) for planes, (w, h) in zip(corners, sides, strict=True))
    return overlap_of_planes(first, second, overlap, *sides)


def overlap_of_planes(
    a: BoxPlanes,
    b: BoxPlanes,
    overlap: OverlapName,
    sides_a: tuple[Tensor, Tensor] | None = None,
    sides_b: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """The kernel of `paired_overlap`, on planes; sides default to those of the corners.

    New tensors are written in place where differentiation allows it; what belongs to `a` alone is computed in the shape
    of `a`, which may be smaller.
    """
    (wa, ha), (wb, hb) = sides_a or a.sides, sides_b or b.sides
    inside_w = torch.minimum(a.x2, b.x2).sub_(torch.maximum(a.x1, b.x1)).clamp_(min=0)
    inside_h = torch.minimum(a.y2, b.y2).sub_(torch.maximum(a.y1, b.y1)).clamp_(min=0)
    inside = inside_w * inside_h
    union = (wa * ha + EPSILON + wb * hb).sub_(inside)
    iou = inside / union
    if overlap == "iou":
        return iou
    hull_w = torch.maximum(a.x2, b.x2).sub_(torch.minimum(a.x1, b.x1))
    hull_h = torch.maximum(a.y2, b.y2).sub_(torch.minimum(a.y1, b.y1))
    if overlap == "giou":
        hull = (hull_w * hull_h).add_(EPSILON)
        return iou - (hull - union) / hull
    gap_x, gap_y = (b.x1 + b.x2) - (a.x1 + a.x2), (b.y1 + b.y2) - (a.y1 + a.y2)
    gap = (gap_x * gap_x).addcmul_(gap_y, gap_y)  # four times the squared distance of the centres
    diou = torch.sub(iou, gap / (hull_w * hull_w).addcmul_(hull_h, hull_h).add_(EPSILON), alpha=0.25)
    if overlap == "diou":
        return diou
    return diou - _aspect_penalty(iou, a.angle, b.angle)


def _angle(width: Tensor, height: Tensor) -> Tensor:
    """Angle of the diagonal, atan(w / h), in quarter turns."""
    return torch.atan(width / height) * (2 / math.pi)


def _aspect_penalty(iou: Tensor, angle_a: Tensor | None, angle_b: Tensor | None) -> Tensor:
    """Alpha times v of CIoU, from the aspect angles."""
    assert angle_a is not None, "planes for ciou carry their angles"
    assert angle_b is not None, "planes for ciou carry their angles"
    turn = angle_b - angle_a
    v = turn * turn
    with torch.no_grad():
        alpha = v / (1 - iou).add_(v).add_(EPSILON)
    return alpha * v
