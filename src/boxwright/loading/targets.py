# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""What a batch's labels look like as padded arrays, by task. Runs in the loader's processes; imports no torch."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float32, Int64, Shaped

from boxwright.datasets.formats.shapes import box_corners, smallest_rectangle
from boxwright.datasets.instances import clip_points
from boxwright.datasets.policy import DataConfig
from boxwright.datasets.raster import Patch, outline_pixels
from boxwright.datasets.sample import DatasetHeader, Instances
from boxwright.vocabulary import TASKS, AttributeSpec, TaskFacts, TaskName

Arrays = Mapping[str, np.ndarray | Mapping[str, np.ndarray]]  # by field of `Targets`
_BYTE = 255  # largest slot number + 1 that crosses between processes in one byte a pixel


@dataclass(frozen=True, slots=True)
class TargetLayout:
    """What the labels of a batch hold beside classes and boxes."""

    task: TaskName = "detect"
    mask_ratio: int = 4  # network px per pixel of the mask grid
    mask_encoding: Literal["map", "instances"] = "map"
    keypoints: int = 0  # of every object
    attributes: tuple[AttributeSpec, ...] = ()

    @property
    def facts(self) -> TaskFacts:
        """What the task is."""
        return TASKS[self.task]

    @staticmethod
    def of(data: DataConfig, header: DatasetHeader) -> "TargetLayout":
        """By the task and what the dataset tells."""
        return TargetLayout(
            task=data.task,
            mask_ratio=data.mask_ratio,
            mask_encoding=data.mask_encoding,
            keypoints=0 if header.keypoints is None else header.keypoints.count,
            attributes=header.attributes,
        )


def encode_targets(instances: Sequence[Instances], size: tuple[int, int], layout: TargetLayout) -> Arrays:
    """Padded arrays of images of `size` (h, w), by field of `Targets`.

    Segment: `instance_map` in the smallest type that holds it, or `masks`. An object without an outline has its box as
    one. Pose: `keypoints`. Oriented: `boxes` are the rectangles of least area around what is inside the image.
    Attributes, weights and ignore regions come where labels have them; ignore regions count for all classes.
    """
    labels, boxes, valid = pad_instances(instances)
    arrays: dict[str, np.ndarray | Mapping[str, np.ndarray]] = {"labels": labels, "boxes": boxes, "valid": valid}
    slots = labels.shape[1]
    if layout.facts.oriented:
        rows = [oriented_boxes(objects, size) for objects in instances]
        arrays["boxes"] = _padded(rows, (slots, 5))
    elif layout.facts.outlines:
        name = "instance_map" if layout.mask_encoding == "map" else "masks"
        arrays[name] = _masks(instances, size, slots, layout)
    elif layout.facts.keypoints:
        empty = np.zeros((0, layout.keypoints, 3), np.float32)
        rows = [empty if objects.keypoints is None else objects.keypoints for objects in instances]
        arrays["keypoints"] = _padded(rows, (slots, layout.keypoints, 3))
    if layout.attributes:
        arrays["attributes"] = {spec.name: _attribute(instances, spec, slots) for spec in layout.attributes}
    if any(objects.weights is not None for objects in instances):
        rows = [np.ones(len(objects), np.float32) if objects.weights is None else objects.weights
                for objects in instances]  # fmt: skip
        arrays["weights"] = _padded(rows, (slots,), fill=1)
    regions = [np.zeros((0, 4), np.float32) if objects.ignore is None else objects.ignore for objects in instances]
    if any(len(region) for region in regions):
        arrays["ignore"] = _padded(regions, (max(map(len, regions)), 4))
    return arrays


def pad_instances(
    instances: Sequence[Instances],
) -> tuple[Int64[np.ndarray, "B M"], Float32[np.ndarray, "B M 4"], Bool[np.ndarray, "B M"]]:
    """Labels, boxes and which slots hold an object; M is the largest number of objects of an image, possibly 0."""
    slots = max((len(objects) for objects in instances), default=0)
    labels = np.zeros((len(instances), slots), np.int64)
    boxes = np.zeros((len(instances), slots, 4), np.float32)
    valid = np.zeros((len(instances), slots), np.bool_)
    for row, objects in enumerate(instances):
        count = len(objects)
        labels[row, :count], boxes[row, :count], valid[row, :count] = objects.labels, objects.boxes, True
    return labels, boxes, valid


# -- oriented boxes ------------------------------------------------------------------------------------------------


def oriented_boxes(objects: Instances, size: tuple[int, int] | None = None) -> Float32[np.ndarray, "n 5"]:
    """The rectangle of least area around each object's corners, or its outline, or its box: cx, cy, w, h, radians.

    With the `size` (h, w) of the image, around what is inside it. Angles are in [0, pi / 2), with w along
    (cos, sin): the range that heads of oriented boxes can say wherever they begin.
    """
    result = np.zeros((len(objects), 5), np.float32)
    for row in range(len(objects)):
        points = _points_of(objects, row)
        if size is not None:
            inside = clip_points(points, (0, 0, size[1], size[0]))
            points = inside if len(inside) > 2 else box_corners(objects.boxes[row].tolist())
        result[row] = rectangle_of(points)
    return result


def _points_of(objects: Instances, row: int) -> np.ndarray:
    if objects.corners is not None:
        return np.asarray(objects.corners[row])
    if objects.polygons is not None and objects.polygons[row]:
        return np.concatenate(objects.polygons[row])
    return box_corners(objects.boxes[row].tolist())


def rectangle_of(points: np.ndarray) -> tuple[float, float, float, float, float]:
    """The rectangle of least area around points: px cx, cy, w, h and the angle of w, in [0, pi / 2) radians.

    >>> [round(value, 4) for value in rectangle_of(np.array([(0, 0), (2, 0), (2, 6), (0, 6)]))]
    [1.0, 3.0, 2.0, 6.0, 0.0]
    """
    first, second, third, _ = smallest_rectangle(points)
    (along_x, along_y), (across_x, across_y) = second - first, third - second
    w, h = math.hypot(along_x, along_y), math.hypot(across_x, across_y)
    x, y = (along_x, along_y) if w > 0 else (across_y, -across_x)
    angle = math.atan2(y, x) if w or h else 0.0
    quarters = math.floor(angle / (math.pi / 2) + 1e-6)  # an angle a rounding below a quarter turn is that turn
    angle = max(angle - quarters * (math.pi / 2), 0.0)
    if quarters % 2:
        w, h = h, w
    cx, cy = ((first + third) / 2).tolist()
    return cx, cy, w, h, angle


# -- masks ---------------------------------------------------------------------------------------------------------


def _masks(instances: Sequence[Instances], size: tuple[int, int], slots: int, layout: TargetLayout) -> np.ndarray:
    grid = size[0] // layout.mask_ratio, size[1] // layout.mask_ratio
    if layout.mask_encoding == "map":
        kind = np.uint8 if slots <= _BYTE else np.int32
        maps = np.zeros((len(instances), *grid), kind)
        for image, objects in zip(maps, instances, strict=True):
            paint_map(image, object_patches(objects, grid, layout.mask_ratio))
        return maps
    masks = np.zeros((len(instances), slots, *grid), np.bool_)
    for of_image, objects in zip(masks, instances, strict=True):
        for mask, patch in zip(of_image, object_patches(objects, grid, layout.mask_ratio), strict=False):
            mask[patch.window] = patch.pixels
    return masks


def object_patches(objects: Instances, grid: tuple[int, int], ratio: int) -> list[Patch]:
    """The pixels of each object on the mask grid; at least one, so that no object is taught to have no mask."""
    patches = []
    for row in range(len(objects)):
        outline = () if objects.polygons is None else objects.polygons[row]
        patch = outline_pixels(outline or (box_corners(objects.boxes[row].tolist()),), grid, ratio)
        if not patch.pixels.any():
            x1, y1, x2, y2 = objects.boxes[row].tolist()
            top, left = int((y1 + y2) / 2 / ratio), int((x1 + x2) / 2 / ratio)
            patch = Patch(min(max(top, 0), grid[0] - 1), min(max(left, 0), grid[1] - 1), np.ones((1, 1), np.bool_))
        patches.append(patch)
    return patches


def paint_map(image: Shaped[np.ndarray, "h w"], patches: Sequence[Patch]) -> None:
    """Writes slot + 1 where each object is, large ones first, so that small ones end on top."""
    areas = [int(patch.pixels.sum()) for patch in patches]
    for slot in sorted(range(len(patches)), key=lambda slot: -areas[slot]):
        image[patches[slot].window][patches[slot].pixels] = slot + 1


# -- padding -------------------------------------------------------------------------------------------------------


def _attribute(instances: Sequence[Instances], spec: AttributeSpec, slots: int) -> np.ndarray:
    shape = (slots, len(spec.values)) if spec.multi_label else (slots,)
    kind = np.float32 if spec.multi_label else np.int64
    none = np.zeros((0, *shape[1:]), kind)
    rows = [(objects.attributes or {}).get(spec.name, np.full((len(objects), *none.shape[1:]), -1, kind))
            for objects in instances]  # fmt: skip
    return _padded(rows, shape, fill=-1, kind=kind)


def _padded(
    rows: Sequence[np.ndarray], shape: tuple[int, ...], fill: float | int = 0, kind: Any = np.float32
) -> np.ndarray:
    result = np.full((len(rows), *shape), fill, kind)
    for place, row in zip(result, rows, strict=True):
        place[: len(row)] = row
    return result
