# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Keypoints: raw outputs to places, the spreads of known sets, and object keypoint similarity."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from boxwright.errors import ConfigError

KeypointForm = Literal["doubled", "offset"]

# Nose, eyes, ears, shoulders, elbows, wrists, hips, knees, ankles; left before right.
# Source: COCO keypoint evaluation, https://cocodataset.org/#keypoints-eval
COCO_SIGMAS = (
    *(0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072),
    *(0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089),
)
AREA_EPSILON = 1e-9  # square cells (or px, in the assigner); keeps an empty box from dividing by 0


def decode_keypoints(
    raw: Float[Tensor, "*n K 2"],
    points: Float[Tensor, "*n 2"],
    strides: Float[Tensor, "*n"],
    form: KeypointForm = "doubled",
) -> Float[Tensor, "*n K 2"]:
    """Keypoints, px, of raw outputs at grid points (px, cell centres) with strides (px).

    "doubled" is twice the raw value from the cell's corner; "offset" is the raw value from the cell's centre (newer
    heads). Raw values are in cells.

    >>> point, stride = torch.tensor([12.0, 4.0]), torch.tensor(8.0)
    >>> decode_keypoints(torch.tensor([[0.5, -1.0]]), point, stride).tolist()  # corner (8, 0) + 16 * (0.5, -1)
    [[16.0, -16.0]]
    >>> decode_keypoints(torch.tensor([[0.5, -1.0]]), point, stride, "offset").tolist()
    [[16.0, -4.0]]
    """
    step = strides[..., None, None]
    if form == "offset":
        return raw * step + points[..., None, :]
    return raw * (2 * step) + (points[..., None, :] - 0.5 * step)


def keypoint_sigmas(count: int, values: int, own: Sequence[float] | None = None) -> tuple[float, ...]:
    """How far annotators of each keypoint scatter, in shares of the square root of the object's area.

    COCO's for 17 keypoints of 3 values (x, y, visibility), else 1 / count for each; `own` replaces them.

    >>> keypoint_sigmas(4, 3)
    (0.25, 0.25, 0.25, 0.25)

    Raises:
        ConfigError: `own` has another length or a number that is not positive.
    """
    if own is None:
        return COCO_SIGMAS if (count, values) == (17, 3) else (1 / count,) * count
    if len(own) != count or any(not sigma > 0 for sigma in own):
        raise ConfigError(f"sigmas: expected {count} positive numbers, one for each keypoint, got {tuple(own)}")
    return tuple(own)


def keypoint_misses(
    points: Float[Tensor, "*n K 2"],
    wanted: Float[Tensor, "*n K 2"],
    visible: Bool[Tensor, "*n K"],
    area: Float[Tensor, "*n"],
    sigmas: Float[Tensor, " K"],
) -> Float[Tensor, "*n K"]:
    """One minus the similarity of each visible keypoint, 1 - exp(-d^2 / (2 (2 sigma)^2 area)); 0 where not visible.

    >>> place, there = torch.zeros(1, 1, 2), torch.tensor([[[2.0, 0.0]]])
    >>> seen, sigma = torch.ones(1, 1, dtype=torch.bool), torch.tensor([0.5])
    >>> round(keypoint_misses(place, there, seen, torch.tensor([4.0]), sigma).item(), 4)  # 1 - exp(-4 / (2 * 1 * 4))
    0.3935

    Source: COCO object keypoint similarity, Ronchi and Perona 2017, arXiv:1707.05388.
    """
    return -torch.expm1(-keypoint_errors(points, wanted, visible, area, sigmas))


def keypoint_errors(
    points: Float[Tensor, "*n K 2"],
    wanted: Float[Tensor, "*n K 2"],
    visible: Bool[Tensor, "*n K"],
    area: Float[Tensor, "*n"],
    sigmas: Float[Tensor, " K"],
) -> Float[Tensor, "*n K"]:
    """What each visible keypoint's similarity is exp(-error) of; 0 where not visible.

    >>> place, there = torch.zeros(1, 1, 2), torch.tensor([[[2.0, 0.0]]])
    >>> seen, sigma = torch.ones(1, 1, dtype=torch.bool), torch.tensor([0.5])
    >>> keypoint_errors(place, there, seen, torch.tensor([4.0]), sigma).item()  # 4 / (2 * 1 * 4)
    0.5
    """
    # By coordinate: a sum over an axis of two is slow. Cut off before the square, and no product: a label that is not
    # visible may hold anything.
    across, down = (a - b for a, b in zip(points.unbind(dim=-1), wanted.unbind(dim=-1), strict=True))
    nothing = across.new_zeros(())
    across, down = torch.where(visible, across, nothing), torch.where(visible, down, nothing)
    inverse = 1 / ((2 * sigmas) ** 2 * (area[..., None] + AREA_EPSILON) * 2)
    return torch.addcmul(across * across, down, down) * inverse
