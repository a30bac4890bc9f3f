# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Distances from a point to the sides of its box, and distributions over such distances."""

import torch
from jaxtyping import Float
from torch import Tensor


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
        by_bin = torch.unflatten(logits.transpose(-1, -2), -2, (4, num_bins)).softmax(dim=-2)
        return torch.matmul(bins, by_bin).transpose(-1, -2)
    return torch.matmul(torch.unflatten(logits, -1, (4, num_bins)).softmax(dim=-1), bins)
