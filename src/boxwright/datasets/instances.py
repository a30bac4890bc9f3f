# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Objects move as a whole: boxes by their corners, outlines, oriented corners and keypoints by their points.

Nothing here knows a task: what a dataset tells of its objects moves, what it does not tell stays None.
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64

from boxwright.datasets.formats.shapes import box_corners, clip_polygon, smallest_rectangle
from boxwright.datasets.sample import Instances, Polygons

Matrix = Float64[np.ndarray, "3 3"]
MIN_DEPTH = 1e-3  # homogeneous coordinate; a point nearer to the horizon of a perspective has no usable image
Area = tuple[float | int, float | int, float | int, float | int]  # px xyxy
MovePoints = Callable[[np.ndarray], np.ndarray]  # (n, 2) px to (n, 2) px, float64


def scaling(scale: tuple[float | int, float | int], shift: tuple[float | int, float | int] = (0, 0)) -> Matrix:
    """The matrix that multiplies x and y and then adds to them, px."""
    return np.array(((scale[0], 0, shift[0]), (0, scale[1], shift[1]), (0, 0, 1)), np.float64)


def only_scales(matrix: Matrix) -> bool:
    """Whether a transform keeps upright boxes upright: it scales, shifts and mirrors."""
    (_, b, _), (d, _, _), (g, h, _) = matrix.tolist()
    return not (b or d or g or h)


def move(objects: Instances, matrix: Matrix) -> Instances:
    """All objects moved by a 3x3 matrix; nothing is clipped or dropped.

    Where an upright box does not stay upright, the new one is the extent of the outline (or of the oriented corners),
    of the old box where there is none. An object that crosses the horizon of a perspective gets an empty box.
    Unlabelled keypoints stay at zero. Areas grow with the transform where it is the same everywhere, else they go.
    """
    if only_scales(matrix):
        boxes = _upright_boxes(objects.boxes, matrix)
        if is_plain(objects):
            return Instances(boxes, objects.labels)
    else:
        boxes = warp_boxes(objects.boxes, matrix).astype(np.float32)
    changes: dict[str, Any] = {"boxes": boxes}
    project = _projection(matrix)
    if objects.corners is not None:
        changes["corners"] = project(objects.corners.reshape(-1, 2)).reshape(-1, 4, 2).astype(np.float32)
    if objects.polygons is not None:
        changes["polygons"] = map_outlines(objects.polygons, project)
    if objects.keypoints is not None:
        points = objects.keypoints.astype(np.float64)
        points[..., :2] = project(points[..., :2].reshape(-1, 2)).reshape(*points.shape[:-1], 2)
        changes["keypoints"] = _labelled_only(points, points[..., 2] > 0)
    if objects.ignore is not None:
        changes |= {"ignore": warp_boxes(objects.ignore, matrix).astype(np.float32), "ignore_outlines": None}
    if objects.areas is not None:
        factor = abs(float(np.linalg.det(matrix[:2, :2])))
        changes["areas"] = None if matrix[2, :2].any() else (objects.areas * factor).astype(np.float32)
    moved = replace(objects, **changes)
    return moved if only_scales(matrix) else replace(moved, boxes=_around_points(moved))


def is_plain(objects: Instances) -> bool:
    """Whether there is nothing but boxes and labels: the short way, for detection."""
    return (
        objects.polygons is None
        and objects.corners is None
        and objects.keypoints is None
        and objects.attributes is None
        and objects.weights is None
        and objects.areas is None
        and objects.ignore is None
    )


def _upright_boxes(boxes: np.ndarray, matrix: Matrix) -> Float32[np.ndarray, "n 4"]:
    (scale_x, _, shift_x), (_, scale_y, shift_y), _ = matrix.tolist()
    moved = boxes * np.array((scale_x, scale_y, scale_x, scale_y)) + np.array((shift_x, shift_y, shift_x, shift_y))
    if scale_x < 0:  # mirrored: the sides changed places
        moved[:, [0, 2]] = moved[:, [2, 0]]
    if scale_y < 0:
        moved[:, [1, 3]] = moved[:, [3, 1]]
    return np.asarray(moved, np.float32)


def _around_points(moved: Instances) -> Float32[np.ndarray, "n 4"]:
    """The extent of each object's outline or corners; its box where it has none, or was lost behind the horizon."""
    result = moved.boxes.astype(np.float32)
    for row in np.flatnonzero(result.any(axis=1)).tolist():
        if moved.polygons is not None and moved.polygons[row]:
            points = np.concatenate(moved.polygons[row])
        elif moved.corners is not None:
            points = moved.corners[row]
        else:
            continue
        result[row] = *points.min(axis=0), *points.max(axis=0)
    return result


def warp_boxes(
    boxes: Float32[np.ndarray, "n 4"] | Float64[np.ndarray, "n 4"], matrix: Matrix
) -> Float64[np.ndarray, "n 4"]:
    """The upright boxes around the moved corners; a box that crosses the horizon of a perspective becomes empty."""
    corners = np.ones((len(boxes), 4, 3))
    corners[..., :2] = boxes[:, [0, 1, 2, 3, 0, 3, 2, 1]].reshape(-1, 4, 2)
    moved = corners @ matrix.T
    depth = moved[..., 2:]
    points = moved[..., :2] / np.maximum(depth, MIN_DEPTH)
    result = np.concatenate((points.min(1), points.max(1)), axis=1)
    result[(depth < MIN_DEPTH).any((1, 2))] = 0
    return result


def mirror(
    objects: Instances, size: tuple[int, int], *, upside_down: bool, mirrored: bool, order: tuple[int, ...] | None
) -> Instances:
    """Objects of an image of `size` (h, w) that was flipped; `order` is the index of each keypoint in a mirrored image.

    A mirrored left hand is a right hand: keypoints change their names only where left and right change places.
    """
    scale = -1.0 if mirrored else 1.0, -1.0 if upside_down else 1.0
    moved = move(objects, scaling(scale, (size[1] if mirrored else 0.0, size[0] if upside_down else 0.0)))
    if mirrored and moved.keypoints is not None and order is not None:
        moved = replace(moved, keypoints=moved.keypoints[:, list(order)])
    return moved


def cut(objects: Instances, area: Area) -> Instances:
    """What is left inside a rectangle, px xyxy, of objects whose rest becomes invisible; the others are dropped.

    Boxes and outlines are clipped, oriented boxes fitted again to what is left, keypoints outside become unlabelled.
    """
    x1, y1, x2, y2 = area
    boxes = objects.boxes.clip((x1, y1, x1, y1), (x2, y2, x2, y2)).astype(np.float32)
    keep = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    if is_plain(objects):
        return Instances(boxes, objects.labels) if keep.all() else Instances(boxes[keep], objects.labels[keep])
    changes: dict[str, Any] = {"boxes": boxes}
    # A box may overlap the rectangle where the object itself does not.
    if objects.corners is not None:
        changes["corners"] = _cut_corners(objects.corners, area)
        keep &= changes["corners"].any((1, 2))
    if objects.polygons is not None:
        changes["polygons"] = tuple(_cut_outline(outline, area) for outline in objects.polygons)
        left = zip(objects.polygons, changes["polygons"], strict=True)
        keep &= np.array([bool(after) or not before for before, after in left], np.bool_)
    return cut_rest(replace(objects, **changes), area).take(keep)


def cut_rest(objects: Instances, area: Area) -> Instances:
    """Objects with keypoints outside a rectangle, px xyxy, unlabelled and ignore regions clipped to it."""
    x1, y1, x2, y2 = area
    changes: dict[str, Any] = {}
    if objects.keypoints is not None:
        x, y, seen = objects.keypoints[..., 0], objects.keypoints[..., 1], objects.keypoints[..., 2] > 0
        inside = (x >= x1) & (x < x2) & (y >= y1) & (y < y2)
        changes["keypoints"] = _labelled_only(objects.keypoints, seen & inside)
    if objects.ignore is not None:
        regions = objects.ignore.clip((x1, y1, x1, y1), (x2, y2, x2, y2)).astype(np.float32)
        keep = (regions[:, 2] > regions[:, 0]) & (regions[:, 3] > regions[:, 1])
        changes |= {"ignore": regions[keep], "ignore_outlines": None}
        changes["ignore_labels"] = None if objects.ignore_labels is None else objects.ignore_labels[keep]
    return replace(objects, **changes) if changes else objects


def map_outlines(outlines: tuple[Polygons, ...], project: MovePoints) -> tuple[Polygons, ...]:
    """Every point of every outline moved, all at once."""
    parts = [part for outline in outlines for part in outline]
    if not parts:
        return outlines
    moved = project(np.concatenate(parts)).astype(np.float32)
    pieces = iter(np.split(moved, np.cumsum([len(part) for part in parts[:-1]])))
    return tuple(tuple(islice(pieces, len(outline))) for outline in outlines)


def _projection(matrix: Matrix) -> MovePoints:
    def project(points: np.ndarray) -> np.ndarray:
        moved = points.astype(np.float64) @ matrix[:, :2].T + matrix[:, 2]
        return np.asarray(moved[:, :2] / np.maximum(moved[:, 2:], MIN_DEPTH))

    return project


def _labelled_only(keypoints: np.ndarray, labelled: np.ndarray) -> Float32[np.ndarray, "n K 3"]:
    return np.asarray(np.where(labelled[..., None], keypoints, 0), np.float32)


def _leaves(points: np.ndarray, area: Area) -> bool:
    x1, y1, x2, y2 = area
    (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
    return bool(left < x1 or top < y1 or right > x2 or bottom > y2)


def clip_points(points: np.ndarray, area: Area) -> np.ndarray:
    """The part of a polygon inside a rectangle, px xyxy; (0, 2) where nothing is."""
    if not _leaves(points, area):
        return points
    x1, y1, x2, y2 = area
    inside = clip_polygon(points.astype(np.float64) - (x1, y1), float(x2 - x1), float(y2 - y1))
    return np.asarray(inside + np.array((x1, y1)))


def _cut_outline(outline: Polygons, area: Area) -> Polygons:
    parts = (clip_points(part, area).astype(np.float32) for part in outline)
    return tuple(part for part in parts if len(part) > 2)


def _cut_corners(corners: np.ndarray, area: Area) -> Float32[np.ndarray, "n 4 2"]:
    result = corners.astype(np.float32)
    for row in np.flatnonzero([_leaves(points, area) for points in corners]):
        inside = clip_points(corners[row], area)
        result[row] = smallest_rectangle(inside) if len(inside) > 2 else box_corners((0.0, 0.0, 0.0, 0.0))
    return result
