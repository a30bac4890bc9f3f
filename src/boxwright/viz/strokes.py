# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Lines and areas of one object: box, oriented box, mask, keypoints."""

import colorsys
from collections.abc import Sequence

import cv2
import numpy as np

from boxwright.ops.polygons import oriented_corners
from boxwright.results import InstanceMask
from boxwright.viz.lettering import Colour
from boxwright.vocabulary import KeypointSpec

GOLDEN_ANGLE = 0.61803398875  # turns of hue between neighbouring classes: never near each other, never used up
COVER = 0.45  # of a mask's colour on the image
SEEN = 0.5  # keypoints are drawn when their visibility is above it: labels have 0, 1 or 2, predictions 0 to 1


def colour(label: int) -> Colour:
    """RGB of a class: saturated, of its own hue, the same in every picture."""
    hue = (0.02 + label * GOLDEN_ANGLE) % 1.0
    lightness = (0.45, 0.38, 0.55)[label // 12 % 3]
    red, green, blue = colorsys.hls_to_rgb(hue, lightness, 0.85)
    return round(red * 255), round(green * 255), round(blue * 255)


def thickness(shape: tuple[int, ...]) -> int:
    """Width of lines, px, in an image of this shape."""
    return max(1, round(min(max(shape[:2]), 4000) / 320))


def outline_box(canvas: np.ndarray, box: Sequence[float], paint: Colour, thick: int) -> tuple[int, int]:
    """Draws a box (xyxy, or cx cy w h and radians) and returns where its text begins: x, y of its upper corner."""
    if len(box) == 4:
        x1, y1, x2, y2 = (round(value) for value in box)
        cv2.rectangle(canvas, (x1, y1), (x2, y2), paint, thick)
        return x1, y1
    corners = np.round(oriented_corners(np.array(box, np.float64))).astype(np.int32)
    cv2.polylines(canvas, [corners], True, paint, thick, cv2.LINE_AA)
    x, y = corners[corners[:, 1].argmin()].tolist()
    return x, y


def cover_mask(canvas: np.ndarray, mask: InstanceMask, paint: Colour, thick: int) -> None:
    """Lays the colour over the pixels of a mask, with a line around them; what leaves the canvas is cut off."""
    top, left = max(mask.top, 0), max(mask.left, 0)
    pixels = mask.pixels[top - mask.top :, left - mask.left :]
    part = canvas[top : top + pixels.shape[0], left : left + pixels.shape[1]]
    pixels = pixels[: part.shape[0], : part.shape[1]]
    if not pixels.any():
        return
    part[pixels] = np.round(part[pixels] * (1 - COVER) + np.array(paint, np.float32) * COVER).astype(np.uint8)
    lines, _ = cv2.findContours(pixels.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(canvas, lines, -1, paint, max(thick // 2, 1), offset=(left, top))


def join_keypoints(
    canvas: np.ndarray, points: np.ndarray, spec: KeypointSpec | None, paint: Colour, thick: int
) -> None:
    """The skeleton in the object's colour and a dot of its own colour for each keypoint that is there."""
    seen = points[:, 2] > SEEN
    places = [(round(x), round(y)) for x, y in points[:, :2].tolist()]
    for first, second in spec.skeleton if spec is not None else ():
        if seen[first] and seen[second]:
            cv2.line(canvas, places[first], places[second], paint, thick, cv2.LINE_AA)
    for index in np.flatnonzero(seen).tolist():
        cv2.circle(canvas, places[index], thick + 2, (255, 255, 255), -1, cv2.LINE_AA)
        cv2.circle(canvas, places[index], thick + 1, colour(index), -1, cv2.LINE_AA)
