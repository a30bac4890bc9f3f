# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Where pixels and points move: one 3x3 matrix for both, flips, and which boxes are still worth a label.

Coordinates are continuous: pixel k covers [k, k + 1), its centre is k + 0.5.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float64, Int64, UInt8

from boxwright.ops.letterbox import FILL, Letterbox

MIN_SIDE = 2.0  # px after the transform; thinner boxes are dropped
MIN_VISIBLE = 0.10  # share of the (scaled) area that must be left inside the image
MAX_ASPECT = 100.0  # long side over short side
_TINY = 1e-16  # px; keeps the ratios of empty boxes finite
_MIN_DEPTH = 1e-3  # homogeneous coordinate; a corner nearer to the horizon has no usable image

Matrix = Float64[np.ndarray, "3 3"]
Boxes = Float64[np.ndarray, "n 4"]


@dataclass(frozen=True, slots=True)
class Warp:
    """A drawn transform from canvas to output coordinates."""

    matrix: Matrix
    scale: float  # size factor that was drawn; areas are expected to change by its square

    @property
    def axis_aligned(self) -> bool:
        """Whether it only scales and shifts, so that tiles can be resized straight into the output."""
        off_diagonal = self.matrix[[0, 1, 2, 2], [1, 0, 0, 1]]
        return not off_diagonal.any()


@dataclass(frozen=True, slots=True)
class Picture:
    """An image on the way through the pipeline."""

    image: UInt8[np.ndarray, "h w 3"]
    boxes: Boxes  # px xyxy
    labels: Int64[np.ndarray, " n"]
    areas: Float64[np.ndarray, " n"]  # px^2 before the warp, for `keep_visible`


def draw_warp(
    rng: np.random.Generator,
    canvas: int,
    output: int,
    *,
    degrees: float = 0.0,
    translate: float = 0.0,
    scale: float = 0.0,
    shear: float = 0.0,
    perspective: float = 0.0,
) -> Warp:
    """A random transform of a square canvas about its centre into a square output; always draws eight numbers.

    Ranges are those of `AugmentConfig`.

    matrix = T S R P C (right to left): centre, perspective, rotate and scale, shear, move to the drawn place.
    Source: spec/recipe section 6.
    """
    draws = rng.uniform(-1, 1, 8)
    size = 1 + draws[7] * scale
    centre, tilt, rotate, slant, place = (np.eye(3) for _ in range(5))
    centre[:2, 2] = -canvas / 2
    tilt[2, :2] = draws[0:2] * perspective
    angle = np.deg2rad(draws[2] * degrees)
    cosine, sine = size * np.cos(angle), size * np.sin(angle)
    rotate[:2, :2] = [[cosine, sine], [-sine, cosine]]
    slant[[0, 1], [1, 0]] = np.tan(np.deg2rad(draws[3:5] * shear))
    place[:2, 2] = (0.5 + draws[5:7] * translate) * output
    return Warp(place @ slant @ rotate @ tilt @ centre, float(size))


def warp_image(image: UInt8[np.ndarray, "h w 3"], matrix: Matrix, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """The image moved by `matrix` into size x size pixels; bilinear, grey outside.

    Deviation: the peer moves pixel corners where OpenCV expects centres, which shifts its pixels by
    (scale - 1) / 2 px against its boxes; here both move alike.
    """
    half = np.eye(3)
    half[:2, 2] = 0.5
    centred = np.linalg.inv(half) @ matrix @ half
    fill = (FILL, FILL, FILL)
    if centred[2, :2].any():
        return cv2.warpPerspective(image, centred, (size, size), borderValue=fill)
    return cv2.warpAffine(image, centred[:2], (size, size), borderValue=fill)


def warp_boxes(boxes: Boxes, matrix: Matrix) -> Boxes:
    """The upright boxes around the moved corners; a box that crosses the horizon of a perspective becomes empty."""
    corners = np.ones((len(boxes), 4, 3))
    corners[..., :2] = boxes[:, [0, 1, 2, 3, 0, 3, 2, 1]].reshape(-1, 4, 2)
    moved = corners @ matrix.T
    depth = moved[..., 2:]
    points = moved[..., :2] / np.maximum(depth, _MIN_DEPTH)
    result = np.concatenate((points.min(1), points.max(1)), axis=1)
    result[(depth < _MIN_DEPTH).any((1, 2))] = 0
    return result


def flip_boxes(boxes: Boxes, size: tuple[int, int], *, upside_down: bool, mirrored: bool) -> Boxes:
    """Boxes in an image of `size` (h, w) that was flipped."""
    result = boxes.copy()
    if upside_down:
        result[:, [1, 3]] = size[0] - boxes[:, [3, 1]]
    if mirrored:
        result[:, [0, 2]] = size[1] - boxes[:, [2, 0]]
    return result


def keep_visible(picture: Picture, scale: float) -> Picture:
    """The picture with boxes clipped to it, without those that the transform left too small, thin or hidden.

    Source: spec/recipe section 6, "Filter".
    """
    height, width = picture.image.shape[:2]
    boxes = picture.boxes.clip(0, (width, height, width, height))
    w, h = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    aspect = np.maximum(w / (h + _TINY), h / (w + _TINY))
    visible = w * h / (picture.areas * scale**2 + _TINY)
    keep = (w > MIN_SIDE) & (h > MIN_SIDE) & (visible > MIN_VISIBLE) & (aspect < MAX_ASPECT)
    return Picture(picture.image, boxes[keep], picture.labels[keep], picture.areas[keep])


def apply_letterbox(image: UInt8[np.ndarray, "h w 3"], box: Letterbox) -> UInt8[np.ndarray, "H W 3"]:
    """The image resized (bilinear) and padded with grey as `box` says."""
    height, width = box.resized
    result = np.full((*box.target, 3), FILL, np.uint8)
    inside = result[box.top : box.top + height, box.left : box.left + width]
    if image.shape[:2] == box.resized:
        inside[:] = image
    else:
        cv2.resize(image, (width, height), dst=inside, interpolation=cv2.INTER_LINEAR)
    return result
