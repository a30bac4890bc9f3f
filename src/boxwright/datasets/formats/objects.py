# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The objects of one image while they are read, and how they become `Instances` of the wanted task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from boxwright.datasets import codes
from boxwright.datasets.codes import Code, Severity
from boxwright.datasets.formats.shapes import box_corners
from boxwright.datasets.policy import DataConfig
from boxwright.datasets.sample import Instances, Polygons
from boxwright.vocabulary import TASKS, AttributeSpec, KeypointSpec

Box = tuple[float, float, float, float]  # px xyxy
AttributeValue = int | tuple[float, ...]  # index, or 0 / 1 of every value; -1 is not labelled
MAX_AREA_LOST = 0.01  # part of a box outside the image that is cut without a word: rounding of the labelling tool


class Remark(NamedTuple):
    """Something about one entry that was mended, or that a person should know."""

    code: Code
    message: str
    action: str = "none"  # what was mended; "none": nothing
    severity: Severity = "warning"


@dataclass(slots=True)
class ReadObject:
    """One object, px of the upright image."""

    label: int
    box: Box  # inside the image
    polygons: tuple[np.ndarray, ...] = ()  # parts of the outline, (p, 2) each
    corners: np.ndarray | None = None  # (4, 2); None: those of the box
    keypoints: np.ndarray | None = None  # (K, 3); None: none is labelled
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    area: float | None = None  # px^2 as the file states it


@dataclass(frozen=True, slots=True)
class Wanted:
    """What labels are read for."""

    polygons: bool
    corners: bool
    keypoints: KeypointSpec | None
    attributes: tuple[AttributeSpec, ...]

    @staticmethod
    def of(config: DataConfig, keypoints: KeypointSpec | None, attributes: tuple[AttributeSpec, ...]) -> "Wanted":
        """By the task, or everything that a dataset tells."""
        facts, everything = TASKS[config.task], config.keep == "all"
        return Wanted(
            polygons=facts.outlines or everything,
            corners=facts.oriented,
            keypoints=keypoints if facts.keypoints or everything else None,
            attributes=attributes,
        )


def instances_of(
    objects: Sequence[ReadObject],
    wanted: Wanted,
    *,
    ignore: Sequence[Box] | None = None,
    ignore_labels: Sequence[int] = (),
    ignore_outlines: Sequence[tuple[np.ndarray, ...]] = (),
) -> Instances:
    """The instances of one image, with every field that is wanted; areas where a file states any."""
    count = len(objects)
    fields: dict[str, Any] = {
        "boxes": np.array([item.box for item in objects], np.float64).reshape(count, 4).astype(np.float32),
        "labels": np.array([item.label for item in objects], np.int64),
    }
    if wanted.polygons:
        fields["polygons"] = _float32([item.polygons for item in objects])
    if wanted.corners:
        corners = [box_corners(item.box) if item.corners is None else item.corners for item in objects]
        fields["corners"] = np.array(corners, np.float64).reshape(count, 4, 2).astype(np.float32)
    if wanted.keypoints is not None:
        none = np.zeros((wanted.keypoints.count, 3))
        points = [none if item.keypoints is None else item.keypoints for item in objects]
        fields["keypoints"] = np.array(points, np.float64).reshape(count, len(none), 3).astype(np.float32)
    if wanted.attributes:
        fields["attributes"] = {spec.name: _column(spec, objects) for spec in wanted.attributes}
    if any(item.area is not None for item in objects):
        fields["areas"] = np.array([_area(item) for item in objects], np.float32)
    if ignore is not None:
        fields["ignore"] = np.array(ignore, np.float64).reshape(-1, 4).astype(np.float32)
        fields["ignore_labels"] = np.array(ignore_labels, np.int64)
        if any(ignore_outlines):
            fields["ignore_outlines"] = _float32(ignore_outlines)
    return Instances(**fields)


def _float32(outlines: Sequence[tuple[np.ndarray, ...]]) -> tuple[Polygons, ...]:
    return tuple(tuple(part.astype(np.float32) for part in outline) for outline in outlines)


def _column(spec: AttributeSpec, objects: Sequence[ReadObject]) -> np.ndarray:
    if spec.multi_label:
        unknown = (-1.0,) * len(spec.values)
        rows = [item.attributes.get(spec.name, unknown) for item in objects]
        return np.array(rows, np.float32).reshape(len(objects), len(spec.values))
    return np.array([item.attributes.get(spec.name, -1) for item in objects], np.int64)


def _area(item: ReadObject) -> float:
    x1, y1, x2, y2 = item.box
    return (x2 - x1) * (y2 - y1) if item.area is None else item.area


def clip_box(box: Box, size: tuple[int, int]) -> tuple[Box, float]:
    """The part of a box inside an image of `size` (height, width), and its share of the area; 0 where nothing is."""
    x1, y1, x2, y2 = box
    height, width = size
    area = (x2 - x1) * (y2 - y1)
    clipped = max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))
    kept = max(clipped[2] - clipped[0], 0.0) * max(clipped[3] - clipped[1], 0.0)
    return clipped, kept / area if area > 0 else 0.0


def check_keypoints(points: np.ndarray, limits: tuple[float, float], slack: float = 0.0) -> list[Remark]:
    """Brings keypoints (K, 3) in order, in place, and says what was done.

    Visibility becomes 0, 1 or 2; a labelled point outside 0 .. `limits` (x, y) becomes unlabelled; unlabelled ones 0.
    """
    remarks = []
    unknown = ~np.isin(points[:, 2], (0, 1, 2))
    if unknown.any():
        first = points[unknown, 2][0]
        message = f"visibility of {unknown.sum()} keypoints: expected 0, 1 or 2, got {first:g}; above 0 is visible"
        remarks.append(Remark(codes.BAD_VISIBILITY, message, "read as 0 or 2"))
        points[unknown, 2] = np.where(points[unknown, 2] > 0, 2, 0)
    beyond = (points[:, :2] < -slack) | (points[:, :2] > np.array(limits) + slack)
    outside = (points[:, 2] > 0) & beyond.any(axis=1)
    if outside.any():
        which = ", ".join(str(index + 1) for index in np.flatnonzero(outside)[:5].tolist())
        message = f"{outside.sum()} labelled keypoints lie outside the image: number {which}"
        remarks.append(Remark(codes.KEYPOINT_OUT_OF_RANGE, message, "read as not labelled"))
        points[outside, 2] = 0
    points[:, :2] = points[:, :2].clip(0, limits)
    points[points[:, 2] == 0] = 0
    return remarks
