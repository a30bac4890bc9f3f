# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Where pixels and points move: one 3x3 matrix for both, and which objects are still worth a label.

Coordinates are continuous: pixel k covers [k, k + 1), its centre is k + 0.5.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Float64, UInt8

from boxwright.datasets.instances import Matrix, cut_rest, is_plain, only_scales
from boxwright.datasets.sample import Instances
from boxwright.ops.letterbox import FILL, Letterbox

MIN_SIDE = 2.0  # px after the transform; thinner boxes are dropped
MIN_VISIBLE = 0.10  # share of the (scaled) area that must be left inside the image
MIN_VISIBLE_OUTLINED = 0.01  # the same where outlines or oriented corners tell what is left
MAX_ASPECT = 100.0  # long side over short side
_TINY = 1e-16  # px; keeps the ratios of empty boxes finite


@dataclass(frozen=True, slots=True)
class Warp:
    """A drawn transform from canvas to output coordinates."""

    matrix: Matrix
    scale: float  # size factor that was drawn; areas are expected to change by its square

    @property
    def axis_aligned(self) -> bool:
        """Whether it only scales and shifts, so that tiles can be resized straight into the output."""
        return only_scales(self.matrix)


@dataclass(frozen=True, slots=True)
class Picture:
    """An image on the way through the pipeline."""

    image: UInt8[np.ndarray, "h w 3"]
    objects: Instances  # px
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
    Source: spec/recipe 6.
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
    return warp_into(image, matrix, (size, size))


def warp_into(image: UInt8[np.ndarray, "h w 3"], matrix: Matrix, size: tuple[int, int]) -> UInt8[np.ndarray, "H W 3"]:
    """`warp_image` into an output of `size` (h, w)."""
    half = np.eye(3)
    half[:2, 2] = 0.5
    centred = np.linalg.inv(half) @ matrix @ half
    fill = (FILL, FILL, FILL)
    if centred[2, :2].any():
        return cv2.warpPerspective(image, centred, size[::-1], borderValue=fill)
    return cv2.warpAffine(image, centred[:2], size[::-1], borderValue=fill)


def keep_visible(picture: Picture, scale: float) -> Picture:
    """The picture with boxes clipped to it, without objects that the transform left too small, thin or hidden.

    Keypoints outside become unlabelled; outlines and oriented corners are not clipped.
    Source: spec/recipe 6, "Filter".
    """
    height, width = picture.image.shape[:2]
    objects = picture.objects
    boxes = objects.boxes.astype(np.float64).clip(0, (width, height, width, height))
    w, h = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    aspect = np.maximum(w / (h + _TINY), h / (w + _TINY))
    visible = w * h / (picture.areas * scale**2 + _TINY)
    least = MIN_VISIBLE if objects.polygons is None and objects.corners is None else MIN_VISIBLE_OUTLINED
    keep = (w > MIN_SIDE) & (h > MIN_SIDE) & (visible > least) & (aspect < MAX_ASPECT)
    if is_plain(objects):
        kept = Instances(boxes[keep].astype(np.float32), objects.labels[keep])
    else:
        kept = cut_rest(replace(objects, boxes=boxes.astype(np.float32)), (0, 0, width, height)).take(keep)
    return Picture(picture.image, kept, picture.areas[keep])


def apply_letterbox(image: UInt8[np.ndarray, "h w 3"], box: Letterbox) -> UInt8[np.ndarray, "H W 3"]:
    """The image resized and padded with grey, or cut, as `box` says.

    Bilinear; shrinking to less than half averages over the area, because plain bilinear would skip pixels.
    """
    height, width = box.resized
    if image.shape[:2] == box.resized and box.target == box.resized:
        return image
    result = np.full((*box.target, 3), FILL, np.uint8)
    top, left = max(box.top, 0), max(box.left, 0)
    if min(box.top, box.left) < 0 or top + height > box.target[0] or left + width > box.target[1]:
        whole = image if image.shape[:2] == box.resized else _resized(image, (height, width))
        visible = whole[max(-box.top, 0) :, max(-box.left, 0) :][: box.target[0] - top, : box.target[1] - left]
        result[top : top + visible.shape[0], left : left + visible.shape[1]] = visible
        return result
    inside = result[top : top + height, left : left + width]
    if image.shape[:2] == box.resized:
        inside[:] = image
    else:
        inside[:] = _resized(image, (height, width))
    return result


def _resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    shrinking = image.shape[0] > 2 * size[0] or image.shape[1] > 2 * size[1]
    method = cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, size[::-1], interpolation=method))
