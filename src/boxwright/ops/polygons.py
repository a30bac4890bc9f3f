# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Oriented boxes as polygons, and the exact overlap of convex ones, in float64. Imports no torch."""

import numpy as np
from jaxtyping import Float, Float64

INSIDE = 1e-9  # shares of a polygon's size: a corner this far outside an edge counts as on it, so that none is lost
CHUNK = 20_000  # pairs clipped together: about 30 MB of temporaries


def oriented_corners(boxes: Float[np.ndarray, "*n 5"]) -> Float[np.ndarray, "*n 4 2"]:
    """Corners of boxes (cx, cy, w, h, theta), in order around the box: from +w +h through +w -h and on.

    >>> oriented_corners(np.array([5.0, 5.0, 4.0, 2.0, 0.0])).tolist()
    [[7.0, 6.0], [7.0, 4.0], [3.0, 4.0], [3.0, 6.0]]

    Source: spec/architectures 6.4.
    """
    cx, cy, w, h, theta = (boxes[..., i, None] for i in range(5))
    along = np.array([0.5, 0.5, -0.5, -0.5], boxes.dtype) * w
    across = np.array([0.5, -0.5, -0.5, 0.5], boxes.dtype) * h
    cos, sin = np.cos(theta), np.sin(theta)
    return np.stack((cx + along * cos - across * sin, cy + along * sin + across * cos), axis=-1)


def box_corners(boxes: Float[np.ndarray, "*n 4"]) -> Float[np.ndarray, "*n 4 2"]:
    """Corners of axis-aligned boxes, xyxy, in the order of `oriented_corners`.

    >>> box_corners(np.array([3.0, 4.0, 7.0, 6.0])).tolist()
    [[7.0, 6.0], [7.0, 4.0], [3.0, 4.0], [3.0, 6.0]]
    """
    x1, y1, x2, y2 = (boxes[..., i] for i in range(4))
    return np.stack((np.stack((x2, x2, x1, x1), axis=-1), np.stack((y2, y1, y1, y2), axis=-1)), axis=-1)


def polygon_areas(polygons: Float[np.ndarray, "n p 2"]) -> Float[np.ndarray, " n"]:
    """Areas of simple polygons.

    >>> polygon_areas(np.array([[[0.0, 0.0], [4.0, 0.0], [4.0, 2.0]]])).tolist()
    [4.0]
    """
    x, y = polygons[..., 0], polygons[..., 1]
    crossed = x * np.roll(y, -1, axis=-1) - np.roll(x, -1, axis=-1) * y
    return np.abs(crossed.sum(axis=-1)) / 2  # type: ignore[no-any-return]


def pairwise_intersections(a: Float[np.ndarray, "n 4 2"], b: Float[np.ndarray, "m 4 2"]) -> Float64[np.ndarray, "n m"]:
    """Area that every convex quadrilateral of `a` shares with every one of `b`, exact up to rounding in float64.

    Only pairs whose enclosing rectangles meet are looked at.

    >>> square = np.array([[[0.0, 0], [2, 0], [2, 2], [0, 2]]])
    >>> pairwise_intersections(square, square + 1.0).tolist()
    [[1.0]]
    """
    a, b = a.astype(np.float64), b.astype(np.float64)
    area = np.zeros((len(a), len(b)))
    low = np.maximum(a.min(axis=1)[:, None], b.min(axis=1)[None])
    high = np.minimum(a.max(axis=1)[:, None], b.max(axis=1)[None])
    rows, columns = np.nonzero((low < high).all(axis=-1))
    for start in range(0, len(rows), CHUNK):
        row, column = rows[start : start + CHUNK], columns[start : start + CHUNK]
        area[row, column] = _shared(a[row], b[column])
    return area


def pairwise_oriented_iou(a: Float[np.ndarray, "n 5"], b: Float[np.ndarray, "m 5"]) -> Float64[np.ndarray, "n m"]:
    """Intersection over union of every oriented box of `a` with every one of `b`: the DOTA rule; 0 without a union.

    >>> box = np.array([[0.0, 0.0, 2.0, 2.0, 0.0]])
    >>> turned = np.array([[0.0, 0.0, 2.0, 2.0, np.pi / 4]])  # shares an octagon: 8 (sqrt(2) - 1) of 4
    >>> round(pairwise_oriented_iou(box, turned).item(), 6)
    0.707107

    Source: DOTA, Xia et al. 2018, arXiv:1711.10398.
    """
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    inter = pairwise_intersections(oriented_corners(wide_a), oriented_corners(wide_b))
    area_a, area_b = (np.abs(boxes[:, 2] * boxes[:, 3]) for boxes in (wide_a, wide_b))
    union = area_a[:, None] + area_b[None] - inter
    return inter / np.where(union > 0, union, 1.0)


def _shared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Shared area of paired convex quadrilaterals (P, 4, 2).

    The shared region is convex; its corners are corners of one inside the other, and crossings of edges.
    """
    centre = a.mean(axis=1, keepdims=True)
    a, b = _counter(a - centre), _counter(b - centre)
    crossings, meet = _crossings(a, b)
    points = np.concatenate((a, b, crossings), axis=1)
    held = np.concatenate((_inside(a, b), _inside(b, a), meet), axis=1)
    some = held.any(axis=1)
    first = np.take_along_axis(points, held.argmax(axis=1)[:, None, None], axis=1)
    points = np.where(held[..., None], points, first)  # what is no corner is put onto one: it adds no area
    offset = points - points.mean(axis=1, keepdims=True)
    order = np.argsort(np.arctan2(offset[..., 1], offset[..., 0]), axis=1)
    area = polygon_areas(np.take_along_axis(offset, order[..., None], axis=1))
    return np.where(some, area, 0.0)


def _counter(quads: np.ndarray) -> np.ndarray:
    """The same with the corners in the turning sense of positive area."""
    x, y = quads[..., 0], quads[..., 1]
    signed = (x * np.roll(y, -1, axis=1) - np.roll(x, -1, axis=1) * y).sum(axis=1)
    return np.where(signed[:, None, None] < 0, quads[:, ::-1], quads)


def _inside(points: np.ndarray, quads: np.ndarray) -> np.ndarray:
    """(P, 4) bool: corner inside the convex quadrilateral of its pair, or on its edge."""
    edge = np.roll(quads, -1, axis=1) - quads
    offset = points[:, :, None] - quads[:, None]  # (P, corner, edge, 2)
    side = edge[:, None, :, 0] * offset[..., 1] - edge[:, None, :, 1] * offset[..., 0]
    length = np.square(edge).sum(axis=-1)[:, None]
    return (side >= -INSIDE * length).all(axis=-1)  # type: ignore[no-any-return]


def _crossings(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each edge of one meets each edge of the other: (P, 16, 2) points and (P, 16) whether they meet."""
    way_a, way_b = np.roll(a, -1, axis=1) - a, np.roll(b, -1, axis=1) - b
    p, r = a[:, :, None], way_a[:, :, None]
    q, s = b[:, None], way_b[:, None]
    across = r[..., 0] * s[..., 1] - r[..., 1] * s[..., 0]
    parallel = across == 0
    safe = np.where(parallel, 1.0, across)
    gap = q - p
    t = (gap[..., 0] * s[..., 1] - gap[..., 1] * s[..., 0]) / safe
    u = (gap[..., 0] * r[..., 1] - gap[..., 1] * r[..., 0]) / safe
    meet = ~parallel & (t >= 0) & (t <= 1) & (u >= 0) & (u <= 1)
    points = p + np.where(meet, t, 0.0)[..., None] * r
    return points.reshape(len(a), 16, 2), meet.reshape(len(a), 16)
