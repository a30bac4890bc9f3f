# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""How an image of one size lies inside a network input of another, and the way back. Imports no torch."""

import math
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from boxwright.errors import ShapeError

FILL = 114  # grey of the padding, the value the published weights were trained with
Boxes = TypeVar("Boxes", bound=Any)  # numpy array or torch tensor of shape (..., 4)
Points = TypeVar("Points", bound=Any)  # the same of shape (..., 2)
Oriented = TypeVar("Oriented", bound=Any)  # the same of shape (..., 5): cx, cy, w, h, radians


@dataclass(frozen=True, slots=True)
class Letterbox:
    """An image resized to `resized` and laid into `target` at (`top`, `left`); the rest is padding.

    Sizes are (height, width) in pixels. Negative `top` and `left` cut the image instead.
    """

    source: tuple[int, int]
    target: tuple[int, int]
    resized: tuple[int, int]
    top: int
    left: int

    @property
    def gain(self) -> tuple[float, float]:
        """Network pixels per original pixel, (y, x); they differ a little because sizes are rounded."""
        return self.resized[0] / self.source[0], self.resized[1] / self.source[1]

    def to_network(self, boxes: Boxes) -> Boxes:
        """Boxes, px xyxy of the original image, in pixels of the network input; not clipped."""
        _require(boxes, 4, "boxes")
        gain_y, gain_x = self.gain
        result: Boxes = _copy(boxes)
        result[..., 0::2] = boxes[..., 0::2] * gain_x + self.left
        result[..., 1::2] = boxes[..., 1::2] * gain_y + self.top
        return result

    def to_original(self, boxes: Boxes) -> Boxes:
        """Boxes, px xyxy of the network input, in pixels of the original image, clipped to it.

        The exact inverse of `to_network` for boxes inside the image. Source: spec/architectures 6.2 (the form of 2026).
        """
        _require(boxes, 4, "boxes")
        height, width = self.source
        gain_y, gain_x = self.gain
        result: Boxes = _copy(boxes)
        result[..., 0::2] = ((boxes[..., 0::2] - self.left) / gain_x).clip(0, width)
        result[..., 1::2] = ((boxes[..., 1::2] - self.top) / gain_y).clip(0, height)
        return result

    def points_to_network(self, points: Points) -> Points:
        """Points, px x and y of the original image, in pixels of the network input; not clipped."""
        _require(points, 2, "points")
        gain_y, gain_x = self.gain
        result: Points = _copy(points)
        result[..., 0] = points[..., 0] * gain_x + self.left
        result[..., 1] = points[..., 1] * gain_y + self.top
        return result

    def points_to_original(self, points: Points) -> Points:
        """Points, px x and y of the network input, in pixels of the original image, clipped to it."""
        _require(points, 2, "points")
        (height, width), (gain_y, gain_x) = self.source, self.gain
        result: Points = _copy(points)
        result[..., 0] = ((points[..., 0] - self.left) / gain_x).clip(0, width)
        result[..., 1] = ((points[..., 1] - self.top) / gain_y).clip(0, height)
        return result

    def oriented_to_network(self, boxes: Oriented) -> Oriented:
        """Oriented boxes of the original image in pixels of the network input; not clipped.

        Where both axes have one gain, centre and size are scaled and the angle stays. Otherwise a rectangle would
        become a parallelogram: its side along w is mapped exactly, and h keeps the area.
        """
        _require(boxes, 5, "oriented boxes")
        gain_y, gain_x = self.gain
        moved: Oriented = _scaled_oriented(boxes, gain_x, gain_y)
        moved[..., 0] += self.left
        moved[..., 1] += self.top
        return moved

    def oriented_to_original(self, boxes: Oriented) -> Oriented:
        """Oriented boxes of the network input in pixels of the original image; not clipped.

        The exact inverse of `oriented_to_network`, with the angle in (-pi, pi].
        """
        _require(boxes, 5, "oriented boxes")
        gain_y, gain_x = self.gain
        placed: Oriented = _copy(boxes)
        placed[..., 0] -= self.left
        placed[..., 1] -= self.top
        moved: Oriented = _scaled_oriented(placed, 1 / gain_x, 1 / gain_y)
        return moved


def letterbox(
    source: tuple[int, int], target: tuple[int, int], *, scaleup: bool = True, minimal_stride: int | None = None
) -> Letterbox:
    """Where an image of size `source` lies in a network input of size `target`, both (h, w), keeping its aspect ratio.

    `scaleup=False` never enlarges. `minimal_stride` shrinks the target to the least padding that keeps both sides
    congruent with it modulo the stride. An odd pixel of padding goes to the right and the bottom.

    Raises:
        ShapeError: a side is not positive.

    Source: spec/architectures 6.1.

    >>> letterbox((333, 500), (640, 640)).resized
    (426, 640)
    """
    _require_sides("letterbox", source, target)
    ratio = min(target[0] / source[0], target[1] / source[1])
    if not scaleup:
        ratio = min(ratio, 1.0)
    resized = max(round(source[0] * ratio), 1), max(round(source[1] * ratio), 1)
    padding = target[0] - resized[0], target[1] - resized[1]
    if minimal_stride is not None:
        padding = padding[0] % minimal_stride, padding[1] % minimal_stride
    top, left = round(padding[0] / 2 - 0.1), round(padding[1] / 2 - 0.1)
    target = resized[0] + padding[0], resized[1] + padding[1]
    return Letterbox(source, target, resized, top, left)


def stretch(source: tuple[int, int], target: tuple[int, int]) -> Letterbox:
    """An image of size `source` (h, w) resized to exactly `target`, without regard to its aspect ratio.

    Raises:
        ShapeError: a side is not positive.

    Source: spec/architectures 6.2, as RT-DETR sees images.

    >>> stretch((480, 640), (640, 640)).gain
    (1.3333333333333333, 1.0)
    """
    _require_sides("stretch", source, target)
    return Letterbox(source, target, target, 0, 0)


def centre_crop(source: tuple[int, int], side: int) -> Letterbox:
    """An image of size `source` (h, w) with its short side resized to `side` and the middle square taken.

    Raises:
        ShapeError: a side is not positive.

    Source: spec/recipe 6, evaluation of classifiers.

    >>> centre_crop((100, 200), 50)
    Letterbox(source=(100, 200), target=(50, 50), resized=(50, 100), top=0, left=-25)
    """
    _require_sides("centre_crop", source, (side, side))
    short = min(source)
    height, width = (side if length == short else int(length * (side / short)) for length in source)
    return Letterbox(source, (side, side), (height, width), -round((height - side) / 2), -round((width - side) / 2))


def _scaled_oriented(boxes: Any, across: float, down: float) -> Any:
    """Oriented boxes with x and y multiplied; the side along w is mapped exactly, h keeps the area."""
    result = _copy(boxes)
    result[..., 0] *= across
    result[..., 1] *= down
    if math.isclose(across, down, rel_tol=1e-12):
        result[..., 2:4] *= across
        return result
    cosine, sine, hypot, arctan2 = _trigonometry(boxes)
    theta = boxes[..., 4]
    x, y = cosine(theta) * across, sine(theta) * down
    longer = hypot(x, y)
    result[..., 2] *= longer
    result[..., 3] *= across * down / longer
    result[..., 4] = arctan2(y, x)
    return result


def _trigonometry(boxes: Any) -> tuple[Any, Any, Any, Any]:
    if isinstance(boxes, np.ndarray):
        return np.cos, np.sin, np.hypot, np.arctan2
    import torch  # the caller has it already: a tensor came in

    return torch.cos, torch.sin, torch.hypot, torch.atan2


def _copy(boxes: Any) -> Any:
    return boxes.clone() if hasattr(boxes, "clone") else boxes.copy()


def _require(values: Any, columns: int, what: str) -> None:
    if values.shape[-1] != columns:
        raise ShapeError(f"Letterbox: expected {what} of shape (..., {columns}), got {tuple(values.shape)}")


def _require_sides(name: str, source: tuple[int, int], target: tuple[int, int]) -> None:
    if min(*source, *target) < 1:
        raise ShapeError(f"{name}: expected sides of at least 1 px, got source {source} and target {target}")
