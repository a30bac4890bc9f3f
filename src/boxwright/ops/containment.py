# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Which points lie inside which boxes: the definition of an object's candidates."""

from jaxtyping import Bool, Float
from torch import Tensor

BORDER = 1e-9  # px; a point counts as inside an upright box when it is farther than this from every side


def points_inside(points: Float[Tensor, "A 2"], boxes: Float[Tensor, "M box"]) -> Bool[Tensor, "M A"]:
    """Whether each point (px, x and y) lies inside each box: corners, or cx, cy, w, h and radians.

    A point on the border is outside an upright box and inside an oriented one. Decided in float64.

    >>> import torch
    >>> points = torch.tensor([[4.0, 4.0], [0.0, 4.0]])
    >>> points_inside(points, torch.tensor([[0.0, 0.0, 8.0, 8.0]])).tolist()
    [[True, False]]
    >>> points_inside(points, torch.tensor([[4.0, 4.0, 8.0, 8.0, 0.0]])).tolist()
    [[True, True]]

    Source: spec/losses B.6.
    """
    points, boxes = points.double(), boxes.double()
    if boxes.shape[-1] == 4:
        low, high = boxes[:, None, :2], boxes[:, None, 2:]
        return ((points > low + BORDER) & (points < high - BORDER)).all(dim=-1)
    x, y = (points[:, axis] - boxes[:, axis, None] for axis in (0, 1))
    cos, sin = boxes[:, 4, None].cos(), boxes[:, 4, None].sin()
    along, across = x * cos + y * sin, y * cos - x * sin
    return (along.abs() <= boxes[:, 2, None] / 2) & (across.abs() <= boxes[:, 3, None] / 2)
