# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Outlines and oriented boxes of labels as plain geometry: areas, clipping, joining parts, masks to outlines.

Points are (n, 2), x and y in one unit; pixel i covers [i, i + 1).
"""

from collections.abc import Sequence

import cv2
import numpy as np

from boxwright.datasets import codes
from boxwright.datasets.codes import Code

MIN_INSIDE = 0.7  # share of an oriented box that must lie inside the image (spec/datasets 5)
_CROSSING_POINTS = 200  # longer outlines are not searched for crossings: the search is quadratic


def signed_area(points: np.ndarray) -> float:
    """Area of a polygon, positive when it runs clockwise in an image (y down).

    >>> signed_area(np.array([[0, 0], [2, 0], [2, 3], [0, 3]]))
    6.0
    """
    offsets = points.astype(np.float64) - points[0]
    x, y = offsets[:, 0], offsets[:, 1]
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def polygon_area(points: np.ndarray) -> float:
    """Area of a polygon."""
    return abs(signed_area(points))


def flaw(points: np.ndarray) -> tuple[Code, str] | None:
    """Code and reason why points are no polygon: fewer than three different ones, or all on one line."""
    if len(np.unique(points, axis=0)) < 3:
        return codes.POLYGON_TOO_SHORT, "a polygon needs at least 3 different points"
    offsets = points - points[0]
    farthest = offsets[np.abs(offsets).sum(axis=1).argmax()]
    if not (offsets[:, 0] * farthest[1] != offsets[:, 1] * farthest[0]).any():
        return codes.ZERO_AREA, "the polygon has zero area: all its points lie on one line"
    return None


def extent(points: np.ndarray) -> tuple[float, float, float, float]:
    """The box around points, xyxy."""
    (x1, y1), (x2, y2) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    return x1, y1, x2, y2


def box_corners(box: Sequence[float]) -> np.ndarray:
    """The corners of an xyxy box, (4, 2), clockwise in an image."""
    x1, y1, x2, y2 = box
    return np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2)], np.float64)


def smallest_rectangle(points: np.ndarray) -> np.ndarray:
    """The corners, (4, 2), of the rectangle of least area around points, at any angle."""
    middle = points.mean(axis=0)  # OpenCV computes in float32
    rectangle = cv2.minAreaRect((points - middle).astype(np.float32))
    return np.asarray(cv2.boxPoints(rectangle) + middle, np.float64)


def convex_hull(points: np.ndarray) -> np.ndarray:
    """The corners of the convex hull, clockwise in an image."""
    middle = points.mean(axis=0)
    order = cv2.convexHull((points - middle).astype(np.float32), clockwise=True, returnPoints=False)
    return np.asarray(points[np.asarray(order).ravel()])


def clip_polygon(points: np.ndarray, width: float, height: float) -> np.ndarray:
    """The part of a polygon inside [0, width] x [0, height]; (0, 2) where nothing is.

    Source: Sutherland and Hodgman 1974, Reentrant polygon clipping.
    """
    kept = [(float(x), float(y)) for x, y in points.tolist()]
    for axis, limit, sign in ((0, 0.0, 1), (0, width, -1), (1, 0.0, 1), (1, height, -1)):
        inside = [(point[axis] - limit) * sign >= 0 for point in kept]
        result: list[tuple[float, float]] = []
        for index, point in enumerate(kept):
            before = kept[index - 1]
            if inside[index] != inside[index - 1]:
                part = (limit - before[axis]) / (point[axis] - before[axis])
                other = before[1 - axis] + part * (point[1 - axis] - before[1 - axis])
                result.append((limit, other) if axis == 0 else (other, limit))
            if inside[index]:
                result.append(point)
        kept = result
    return np.array(kept, np.float64).reshape(-1, 2)


def share_inside(corners: np.ndarray, size: tuple[int, int]) -> float:
    """Share of the area of (the hull of) corners that lies inside an image of `size` (height, width)."""
    if corners.min() >= 0 and (corners <= size[::-1]).all():
        return 1.0
    hull = convex_hull(corners)
    whole = polygon_area(hull)
    inside = clip_polygon(hull, float(size[1]), float(size[0]))
    return polygon_area(inside) / whole if whole > 0 and len(inside) >= 3 else 0.0


def crosses_itself(points: np.ndarray) -> bool:
    """Whether two sides of a polygon cross; touching is no crossing. Long outlines are taken to be in order."""
    if not 4 <= len(points) <= _CROSSING_POINTS:
        return False
    start = points.astype(np.float64)
    end = np.roll(start, -1, axis=0)

    def side(first: np.ndarray, second: np.ndarray, other: np.ndarray) -> np.ndarray:
        """(n, n): on which side of each line from `first` to `second` each point of `other` lies."""
        run, gap = second - first, other[None] - first[:, None]
        return np.asarray(np.sign(run[:, None, 0] * gap[..., 1] - run[:, None, 1] * gap[..., 0]))

    apart = side(start, end, start) * side(start, end, end) < 0
    return bool((apart & apart.T).any())


def join_parts(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Several outlines as one closed path, each joined to the path before it at the nearest points.

    The joins run there and back on the same line, so they enclose nothing. Source: spec/datasets 1.
    """
    path = parts[0]
    for part in parts[1:]:
        gaps = path[:, None].astype(np.float64) - part[None]
        i, j = np.unravel_index(int((gaps**2).sum(axis=-1).argmin()), gaps.shape[:2])
        path = np.concatenate((path[: i + 1], part[j:], part[: j + 1], path[i:]))
    return path


def mask_outlines(mask: np.ndarray) -> tuple[np.ndarray, ...]:
    """The outline of each connected part of a mask, along the edges of its pixels; holes are joined to the path.

    A pixel's centre lies inside an outline exactly where the mask is set.
    """
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    outlines = []
    for number in range(1, count):
        left, top, width, height, _ = boxes[number].tolist()
        part = labels[top : top + height, left : left + width] == number
        loops = sorted(_loops(part), key=lambda loop: -signed_area(loop))  # the outer one is the only positive one
        outlines.append(join_parts(loops) + np.array((left, top)))
    return tuple(outlines)


def holes(mask: np.ndarray) -> int:
    """Number of places inside a mask that it does not cover.

    >>> holes(np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]]))
    1
    """
    outside = np.pad(mask, 1) == 0
    return int(cv2.connectedComponents(outside.astype(np.uint8), connectivity=8)[0]) - 2  # what is covered, the outside


_STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))  # right, down, left, up


def _loops(mask: np.ndarray) -> list[np.ndarray]:
    """Closed paths along the edges of a mask's pixels, the mask to the right of each."""
    padded = np.pad(mask, 1)
    inner = padded[1:-1, 1:-1]
    neighbours = (padded[:-2, 1:-1], padded[1:-1, 2:], padded[2:, 1:-1], padded[1:-1, :-2])  # above, right, below, left
    starts = ((0, 0), (1, 0), (1, 1), (0, 1))  # corner of a pixel where its top, right, bottom, left side begins
    leaving: dict[tuple[int, int], list[int]] = {}
    for direction, (outside, (dx, dy)) in enumerate(zip(neighbours, starts, strict=True)):
        rows, columns = np.nonzero(inner & ~outside)
        for x, y in zip((columns + dx).tolist(), (rows + dy).tolist(), strict=True):
            leaving.setdefault((x, y), []).append(direction)
    loops = []
    while leaving:
        x, y = start = next(iter(leaving))
        direction, points = leaving[start][0], list[tuple[int, int]]()
        last = -1
        while choices := leaving.get((x, y)):
            # Where two pixels touch at a corner only, turn right: the path stays with its own pixel.
            turn = (last + 1) % 4 if last >= 0 and (last + 1) % 4 in choices else choices[0]
            choices.remove(turn)
            if not choices:
                del leaving[(x, y)]
            if turn != last:
                points.append((x, y))
            last = turn
            x, y = x + _STEPS[turn][0], y + _STEPS[turn][1]
        loops.append(np.array(points, np.float64))
    return loops
