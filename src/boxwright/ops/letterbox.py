# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""How an image of one size lies inside a network input of another, and the way back. Imports no torch."""

from dataclasses import dataclass
from typing import Any, TypeVar

from boxwright.errors import ShapeError

FILL = 114  # grey of the padding, the value the published weights were trained with
Boxes = TypeVar("Boxes", bound=Any)  # numpy array or torch tensor of shape (..., 4)


@dataclass(frozen=True, slots=True)
class Letterbox:
    """An image resized to `resized` and laid into `target` at (`top`, `left`); the rest is padding.

    Sizes are (height, width) in pixels.
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
        _require_boxes(boxes)
        gain_y, gain_x = self.gain
        result: Boxes = _copy(boxes)
        result[..., 0::2] = boxes[..., 0::2] * gain_x + self.left
        result[..., 1::2] = boxes[..., 1::2] * gain_y + self.top
        return result

    def to_original(self, boxes: Boxes) -> Boxes:
        """Boxes, px xyxy of the network input, in pixels of the original image, clipped to it.

        The exact inverse of `to_network` for boxes inside the image. Source: spec/architectures 6.2, 2026 form.
        """
        _require_boxes(boxes)
        height, width = self.source
        gain_y, gain_x = self.gain
        result: Boxes = _copy(boxes)
        result[..., 0::2] = ((boxes[..., 0::2] - self.left) / gain_x).clip(0, width)
        result[..., 1::2] = ((boxes[..., 1::2] - self.top) / gain_y).clip(0, height)
        return result


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
    if min(*source, *target) < 1:
        raise ShapeError(f"letterbox: expected sides of at least 1 px, got source {source} and target {target}")
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


def _copy(boxes: Any) -> Any:
    return boxes.clone() if hasattr(boxes, "clone") else boxes.copy()


def _require_boxes(boxes: Any) -> None:
    if boxes.shape[-1] != 4:
        raise ShapeError(f"Letterbox: expected boxes of shape (..., 4), got {tuple(boxes.shape)}")
