# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""What the numbers of a foreign box mean, and the same box in ours: px xyxy, or px (cx, cy, w, h) and radians."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from boxwright.ops.boxes import cxcywh_to_xyxy

# Shares of the image's width and height, or px of the network input; centre and size, two corners, or corner and size.
BoxUnit = Literal["normalized_cxcywh", "normalized_xyxy", "normalized_xywh", "pixel_cxcywh", "pixel_xyxy", "pixel_xywh"]


def boxes_in_pixels(
    boxes: Float[Tensor, "N box"], unit: BoxUnit, image_size: tuple[int, int]
) -> Float[Tensor, "N box"]:
    """Boxes of 4 numbers as px xyxy; boxes of 5 as px centre and size with the same angle.

    >>> boxes_in_pixels(torch.tensor([[0.5, 0.5, 0.5, 1.0]]), "normalized_cxcywh", (10, 20)).tolist()
    [[5.0, 0.0, 15.0, 10.0]]
    """
    kind, _, form = unit.partition("_")
    sides = boxes[:, :4]
    if kind == "normalized":
        height, width = image_size
        # By column: a tensor of the four factors would be a copy from the host to the device.
        x, y, w, h = sides.unbind(1)
        sides = torch.stack((x * width, y * height, w * width, h * height), dim=1)
    if boxes.shape[1] == 5:
        return torch.cat((sides, boxes[:, 4:]), dim=1)
    if form == "cxcywh":
        return cxcywh_to_xyxy(sides)
    if form == "xywh":
        return torch.cat((sides[:, :2], sides[:, :2] + sides[:, 2:]), dim=1)
    return sides


def points_in_pixels(
    keypoints: Float[Tensor, "N K _"], unit: BoxUnit, image_size: tuple[int, int]
) -> Float[Tensor, "N K 3"]:
    """(x, y, visibility) in px; points without a visibility count as visible (2)."""
    places, seen = keypoints[..., :2], keypoints[..., 2:]
    if unit.startswith("normalized"):
        height, width = image_size
        places = torch.stack((places[..., 0] * width, places[..., 1] * height), dim=-1)
    if seen.shape[-1] == 0:
        seen = torch.full_like(places[..., :1], 2.0)
    return torch.cat((places, seen), dim=-1)


def enclosing(boxes: Float[Tensor, "N box"]) -> Float[Tensor, "N 4"]:
    """The upright rectangle, px xyxy, around each box of `boxes_in_pixels`.

    >>> enclosing(torch.tensor([[5.0, 5.0, 4.0, 2.0, 0.0]])).tolist()
    [[3.0, 4.0, 7.0, 6.0]]
    """
    if boxes.shape[1] == 4:
        return boxes
    (cx, cy, w, h), cos, sin = boxes[:, :4].unbind(1), boxes[:, 4].cos().abs(), boxes[:, 4].sin().abs()
    return cxcywh_to_xyxy(torch.stack((cx, cy, w * cos + h * sin, w * sin + h * cos), dim=1))
