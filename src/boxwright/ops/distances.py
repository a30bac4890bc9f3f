# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Distances from a point to the sides of its box, and distributions over such distances."""

import torch
from jaxtyping import Float
from torch import Tensor

LOG2_E = 1.4426950408889634  # exp2 is several times faster than exp on CPUs, at the same precision


def encode_distances(points: Float[Tensor, "*n 2"], boxes: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n 4"]:
    """Left, top, right and bottom distances from each point to the sides of its box, in the same unit.

    Negative where the point lies outside. Inverse of `decode_distances`.

    >>> encode_distances(torch.tensor([4.0, 4.0]), torch.tensor([1.0, 2.0, 6.0, 9.0])).tolist()
    [3.0, 2.0, 2.0, 5.0]

    Source: FCOS, Tian et al. 2019, arXiv:1904.01355, eq. 1.
    """
    return torch.cat((points - boxes[..., :2], boxes[..., 2:] - points), dim=-1)


def decode_distances(points: Float[Tensor, "*n 2"], distances: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n 4"]:
    """Corners of the boxes at the given distances from the points, in the same unit.

    >>> decode_distances(torch.tensor([4.0, 4.0]), torch.tensor([3.0, 2.0, 2.0, 5.0])).tolist()
    [1.0, 2.0, 6.0, 9.0]
    """
    (x, y), (left, top, right, bottom) = points.unbind(-1), distances.unbind(-1)
    # One plane per coordinate: what reads x1 of many boxes reads neighbours in memory.
    return torch.stack((x - left, y - top, x + right, y + bottom)).movedim(0, -1)


def expected_distance(logits: Float[Tensor, "*n side_bins"], num_bins: int) -> Float[Tensor, "*n 4"]:
    """Mean of the distribution over distances 0, 1, ... R - 1 of each side, from logits ordered side by side.

    With one bin the value is the distance itself.

    >>> expected_distance(torch.zeros(4 * 3), 3).tolist()
    [1.0, 1.0, 1.0, 1.0]

    Source: Generalized Focal Loss, Li et al. 2020, arXiv:2006.04388, section 3.2.
    """
    if num_bins == 1:
        return logits
    bins = torch.arange(num_bins, dtype=logits.dtype, device=logits.device)
    if logits.ndim > 1 and logits.stride(-1) != 1:
        # A transposed view of a convolution's map: work along its own memory order, nothing is copied.
        by_bin = torch.unflatten(logits.transpose(-1, -2), -2, (4, num_bins))
        # Half the time of a softmax across rows; one product gives both sums.
        weights = (by_bin - by_bin.detach().amax(dim=-2, keepdim=True)).mul_(LOG2_E).exp2_()
        moment, total = torch.matmul(torch.stack((bins, torch.ones_like(bins))), weights).unbind(dim=-2)
        return (moment / total).transpose(-1, -2)
    return torch.matmul(torch.unflatten(logits, -1, (4, num_bins)).softmax(dim=-1), bins)


def decode_rotated(
    points: Float[Tensor, "*n 2"], distances: Float[Tensor, "*n 4"], theta: Float[Tensor, "*n"]
) -> Float[Tensor, "*n 5"]:
    """Oriented boxes (cx, cy, w, h, theta) whose sides lie at the given distances, measured in the box's own frame.

    >>> quarter = torch.tensor(torch.pi / 2)
    >>> [round(x, 4) for x in decode_rotated(torch.zeros(2), torch.tensor([1.0, 1.0, 3.0, 1.0]), quarter).tolist()]
    [-0.0, 1.0, 4.0, 2.0, 1.5708]
    """
    left, top, right, bottom = distances.unbind(-1)
    u, v = (right - left) / 2, (bottom - top) / 2
    cos, sin = torch.cos(theta), torch.sin(theta)
    cx, cy = points[..., 0] + u * cos - v * sin, points[..., 1] + u * sin + v * cos
    # One plane per coordinate, as `decode_distances` writes them.
    return torch.stack((cx, cy, left + right, top + bottom, theta)).movedim(0, -1)


def encode_rotated(points: Float[Tensor, "*n 2"], boxes: Float[Tensor, "*n 5"]) -> Float[Tensor, "*n 4"]:
    """Distances from each point to the sides of its oriented box in the box's own frame; inverse of `decode_rotated`.

    >>> encode_rotated(torch.zeros(2), torch.tensor([1.0, 0.0, 4.0, 2.0, 0.0])).tolist()
    [1.0, 1.0, 3.0, 1.0]
    """
    cx, cy, w, h, theta = boxes.unbind(-1)
    dx, dy = cx - points[..., 0], cy - points[..., 1]
    cos, sin = torch.cos(theta), torch.sin(theta)
    u, v = dx * cos + dy * sin, dy * cos - dx * sin
    return torch.stack((w / 2 - u, h / 2 - v, w / 2 + u, h / 2 + v), dim=-1)
