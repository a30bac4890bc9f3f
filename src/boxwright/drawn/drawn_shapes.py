# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""What drawn scenes are made of: shapes with exact outlines, long shapes at any angle, figures with keypoints."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float64, UInt8

from boxwright.vocabulary import TASKS, AttributeSpec, KeypointSpec, TaskFacts, TaskName

MAX_TILT = math.radians(25)  # to either side of upright
_OVERSAMPLE = 4  # outlines are drawn this much larger, then averaged
# OpenCV draws a point at the centre of a fine pixel, and the drawing begins one pixel away from the edge.
_OFFSET = 1 + 0.5 / _OVERSAMPLE

NAMES = ("circle", "square", "triangle", "cross")
LONG_NAMES = ("bar", "ellipse", "beam", "channel")
FIGURE = KeypointSpec(
    count=5,
    names=("head", "left_hand", "right_hand", "left_foot", "right_foot"),
    flip=(0, 2, 1, 4, 3),
    skeleton=((0, 1), (0, 2), (0, 3), (0, 4)),
)
ATTRIBUTES = (
    AttributeSpec(name="colour", values=("red", "green", "blue")),
    AttributeSpec(name="marks", values=("dot", "stripe"), multi_label=True),
)


@dataclass(frozen=True, slots=True)
class Shape:
    """One object before it has a place; points are px from the top left corner of `mask`."""

    alpha: UInt8[np.ndarray, "h w"]  # share of each pixel that it covers
    mask: Bool[np.ndarray, "h w"]  # at least half covered; touches all four sides
    label: int
    points: Float64[np.ndarray, "p 2"]  # its outline, its four corners or its keypoints
    reach: bool = False  # whether all points must lie inside the image


@dataclass(frozen=True, slots=True)
class Style:
    """What a task's scenes show."""

    names: tuple[str, ...]
    # From a generator, a class and the long side in px: the parts to fill and the points of the label, px.
    draw: Callable[[np.random.Generator, int, float], tuple[list[np.ndarray], np.ndarray]]
    min_size: float = 0.09  # long side of a box over the side of the image
    max_size: float = 0.35
    min_objects: int = 2
    max_objects: int = 8
    corners_inside: bool = False


def draw_shape(rng: np.random.Generator, style: Style, label: int, size: float, side: int) -> Shape:
    """A shape of a class whose box has the long side `size` px, for an image of `side` px."""
    parts, points = style.draw(rng, label, size)
    low = np.min([part.min(0) for part in parts], axis=0)
    high = np.max([part.max(0) for part in parts], axis=0) - low
    fine = np.zeros([int(np.ceil(extent)) * _OVERSAMPLE + 2 * _OVERSAMPLE for extent in high[::-1]], np.uint8)
    for part in parts:
        cv2.fillPoly(fine, [np.round((part - low + 1) * _OVERSAMPLE).astype(np.int32)], 255)
    alpha = cv2.resize(fine, (fine.shape[1] // _OVERSAMPLE, fine.shape[0] // _OVERSAMPLE), interpolation=cv2.INTER_AREA)
    mask = alpha >= 128
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    inside = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    alpha, mask = alpha[inside], mask[inside]
    # Thin tips may be less than half a pixel: draw again, a little larger or smaller, until the size is in range.
    if not style.min_size * side <= max(mask.shape) <= style.max_size * side:
        return draw_shape(rng, style, label, rng.uniform(style.min_size, style.max_size) * side, side)
    return Shape(alpha, mask, label, points - low + _OFFSET - (columns[0], rows[0]), style.corners_inside)


def _compact(rng: np.random.Generator, label: int, size: float) -> tuple[list[np.ndarray], np.ndarray]:
    """A rotated, slightly stretched shape of NAMES, and its outline."""
    points = _OUTLINES[NAMES[label]] * (1.0, rng.uniform(0.85, 1.0))
    angle = rng.uniform(-MAX_TILT, MAX_TILT)
    points = points @ _turn(angle).T
    points -= points.min(0)
    points *= size / points.max()
    return [points], points


def _long(rng: np.random.Generator, label: int, size: float) -> tuple[list[np.ndarray], np.ndarray]:
    """A long shape of LONG_NAMES at any angle, and the corners of its rectangle."""
    slim, turn = rng.uniform(0.3, 0.5), _turn(rng.uniform(0, 2 * math.pi))
    outline = (_LONG_OUTLINES[LONG_NAMES[label]] * (1.0, slim)) @ turn.T
    corners = (np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * (1.0, slim)) @ turn.T
    scale = size / np.ptp(outline, axis=0).max()
    return [outline * scale], corners * scale


def _figure(rng: np.random.Generator, label: int, size: float) -> tuple[list[np.ndarray], np.ndarray]:
    """A figure seen from the front, so that its left is to the right, and its keypoints in the order of FIGURE."""
    head, shoulder, hip = np.array((0, -0.72)), np.array((0, -0.42)), np.array((0, 0.2))
    arms, legs = np.radians(rng.uniform(25, 150, 2)), np.radians(rng.uniform(10, 40, 2))
    hands = [
        shoulder + 0.62 * np.array((way * math.sin(of), math.cos(of))) for way, of in zip((1, -1), arms, strict=True)
    ]
    feet = [hip + 0.75 * np.array((way * math.sin(of), math.cos(of))) for way, of in zip((1, -1), legs, strict=True)]
    keypoints = np.array([head, *hands, *feet])
    parts = [head + _ring([0.26] * 40), _limb(shoulder, hip, 0.13)]
    parts += [_limb(shoulder, hand, 0.09) for hand in hands] + [_limb(hip, foot, 0.09) for foot in feet]
    parts += [end + _ring([0.13] * 24) for end in (*hands, *feet)]
    turn = _turn(rng.uniform(-MAX_TILT, MAX_TILT)).T
    parts, keypoints = [part @ turn for part in parts], keypoints @ turn
    everything = np.concatenate(parts)
    scale = size / np.ptp(everything, axis=0).max()
    return [part * scale for part in parts], keypoints * scale


def _turn(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _limb(start: np.ndarray, end: np.ndarray, half: float) -> np.ndarray:
    """The rectangle around a line, `half` wide to either side."""
    along = (end - start) / np.linalg.norm(end - start)
    across = half * np.array((-along[1], along[0]))
    return np.array([start + across, end + across, end - across, start - across])


def _ring(radii: list[float], turn: float = 0.0) -> np.ndarray:
    """Points around the origin, one for each radius."""
    angles = np.linspace(0, 2 * np.pi, len(radii), endpoint=False) + turn
    return np.asarray(np.stack([np.cos(angles), np.sin(angles)], axis=1) * np.array(radii)[:, None])


_ARM = 0.34  # half width of a cross's arm
_OUTLINES = {
    "circle": _ring([1.0] * 72),
    "square": _ring([1.0] * 4, turn=math.pi / 4),
    "triangle": _ring([1.0] * 3, turn=-math.pi / 2),  # upright: y points down
    "cross": np.array([
        (-_ARM, -1), (_ARM, -1), (_ARM, -_ARM), (1, -_ARM), (1, _ARM), (_ARM, _ARM),
        (_ARM, 1), (-_ARM, 1), (-_ARM, _ARM), (-1, _ARM), (-1, -_ARM), (-_ARM, -_ARM),
    ]),
}  # fmt: skip
# Their rectangle of least area is the one they are drawn in: its corners are theirs, or it is an ellipse's.
_LONG_OUTLINES = {
    "bar": np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]),
    "ellipse": _ring([1.0] * 72),
    "beam": np.array([  # thin in the middle
        (-1, -1), (-0.6, -1), (-0.6, -0.35), (0.6, -0.35), (0.6, -1), (1, -1),
        (1, 1), (0.6, 1), (0.6, 0.35), (-0.6, 0.35), (-0.6, 1), (-1, 1),
    ]),
    "channel": np.array([(-1, -1), (1, -1), (1, -0.4), (-0.4, -0.4), (-0.4, 0.4), (1, 0.4), (1, 1), (-1, 1)]),
}  # fmt: skip


def _style(facts: TaskFacts) -> Style:
    """What is drawn to show the facts of a task."""
    if facts.whole_image:
        return Style(names=NAMES, draw=_compact, min_size=0.4, max_size=0.85, min_objects=1, max_objects=1)
    if facts.keypoints:
        return Style(names=("figure",), draw=_figure, min_size=0.25, max_size=0.5, min_objects=1, max_objects=4)
    if facts.oriented:
        return Style(
            names=LONG_NAMES, draw=_long, min_size=0.16, max_size=0.42, min_objects=2, max_objects=6,
            corners_inside=True,
        )  # fmt: skip
    return Style(names=NAMES, draw=_compact)


STYLES: dict[TaskName, Style] = {task: _style(facts) for task, facts in TASKS.items()}
