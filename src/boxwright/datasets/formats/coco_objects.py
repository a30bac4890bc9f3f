# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The annotations of one image of a COCO file, each checked on its own.

Source: spec/datasets 3, cases 63 to 67.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from boxwright.datasets import codes
from boxwright.datasets.codes import Code
from boxwright.datasets.formats.base import Labels
from boxwright.datasets.formats.collect import Collector, EntryError
from boxwright.datasets.formats.objects import (
    AttributeValue,
    Box,
    ReadObject,
    Remark,
    Wanted,
    check_keypoints,
    clip_box,
)
from boxwright.datasets.formats.oriented import oriented_corners
from boxwright.datasets.formats.rle import RleError, decode_rle
from boxwright.datasets.formats.shapes import extent, flaw, holes, mask_outlines
from boxwright.datasets.policy import DataConfig
from boxwright.datasets.sample import DatasetHeader
from boxwright.vocabulary import AttributeSpec


@dataclass(frozen=True, slots=True)
class CocoImage:
    """What a file says of one image; annotations are as parsed."""

    id: int
    file_name: str
    size: tuple[object, object]  # height, width as stated
    annotations: tuple[Mapping[str, Any], ...]


def read_objects(
    image: CocoImage, name: str, size: tuple[int, int], header: DatasetHeader, config: DataConfig
) -> Labels:
    """The objects of an image, px of the upright image of `size` (height, width)."""
    wanted = Wanted.of(config, header.keypoints, header.attributes)
    found = Collector(name, size, config, wanted, f"{image.file_name}: ", "annotation")
    if image.size not in ((None, None), size):
        message = f"height {image.size[0]}, width {image.size[1]}; the upright image has {size[0]} x {size[1]} px"
        found.say(codes.SIZE_MISMATCH, message, "the image's own size is used")
    index = {number: position for position, number in enumerate(header.class_ids)}
    for number, entry in enumerate(image.annotations):
        reading = _Annotation(found, entry, _title(entry, number))
        try:
            reading.read(index)
        except EntryError as error:
            found.drop(reading.title, error)
    return found.labels(len(image.annotations))


@dataclass(slots=True)
class _Annotation:
    """One annotation while it is read."""

    found: Collector
    entry: Mapping[str, Any]
    title: str

    def read(self, index: Mapping[int, int]) -> None:
        category, wanted = self.entry.get("category_id"), self.found.wanted
        if type(category) is not int or category not in index:
            raise EntryError(codes.CLASS_UNKNOWN, f"category_id {category!r:.40} is not in categories")
        item = ReadObject(index[category], self._box(), area=_number(self.entry.get("area")))
        if self.entry.get("iscrowd") in (1, True):
            self._ignore(item)
            return
        if wanted.polygons or wanted.corners:
            outline = self._outline(self.entry.get("segmentation"))
            item.polygons = outline if wanted.polygons else ()
            if wanted.corners and outline:
                self._orient(item, outline)
        if wanted.keypoints is not None and self.entry.get("keypoints"):
            item.keypoints = self._keypoints(self.entry["keypoints"], wanted.keypoints.count)
        if wanted.attributes:
            item.attributes = self._attributes(self.entry.get("attributes"))
        self.found.add(item, (item.label, *self.entry["bbox"]), self.title)

    def _ignore(self, item: ReadObject) -> None:
        outline: tuple[np.ndarray, ...] = ()
        if self.found.wanted.polygons:
            try:
                given = self.entry.get("segmentation")
                outline = mask_outlines(self._mask(given)) if isinstance(given, dict) else self._outline(given)
            except EntryError as error:
                self._mend(error.code, str(error), "the crowd's box is used")
        self.found.ignore(item.box, item.label, outline)

    def _mend(self, code: Code, message: str, action: str) -> None:
        self.found.remark(self.title, Remark(code, message, action))

    def _box(self) -> Box:
        given = self.entry.get("bbox")
        values = [_number(value) for value in given] if isinstance(given, list) else []
        numbers = [value for value in values if value is not None]
        if len(values) != 4 or len(numbers) != 4:
            raise EntryError(
                codes.BAD_BOX, f"bbox: expected four finite numbers x, y, width, height, got {given!r:.60}"
            )
        x, y, w, h = numbers
        return self.found.clip((x, y, x + w, y + h), self.title)

    # -- outlines --------------------------------------------------------------------------------------------------

    def _outline(self, given: Any) -> tuple[np.ndarray, ...]:
        if not given:
            return ()
        if isinstance(given, dict):
            mask = self._mask(given)
            self.found.leave_out("run lengths of objects' masks (became outlines)")
            self.found.leave_out("holes of objects' masks (joined to the outline by a line)", holes(mask))
            return mask_outlines(mask)
        parts = []
        for part in given if isinstance(given, list) else [given]:
            reason = _polygon_flaw(part)
            if reason is None:
                parts.append(np.array(part, np.float64).reshape(-1, 2))
            else:
                self._mend(codes.BAD_POLYGON, f"segmentation: {reason}", "part dropped")
        return tuple(parts)

    def _mask(self, given: Any) -> np.ndarray:
        try:
            return decode_rle(given, self.found.size)
        except RleError as error:
            raise EntryError(codes.BAD_MASK, f"segmentation: {error}") from None

    def _orient(self, item: ReadObject, outline: tuple[np.ndarray, ...]) -> None:
        try:
            item.corners, remarks = oriented_corners(np.concatenate(outline), self.found.size)
        except EntryError as error:
            raise EntryError(error.code, f"segmentation: {error}") from None
        item.box, _ = clip_box(extent(item.corners), self.found.size)
        if len(outline) == 1 and len(outline[0]) == 4:
            item.polygons = ()  # the outline is the oriented box and tells no more
        for remark in remarks:
            self.found.remark(self.title, remark)

    # -- keypoints and attributes ----------------------------------------------------------------------------------

    def _keypoints(self, given: Any, count: int) -> np.ndarray | None:
        values = [_number(value) for value in given] if isinstance(given, list) else []
        if len(values) != 3 * count or any(value is None for value in values):
            message = f"keypoints: expected {3 * count} finite numbers x, y, v, got {len(values)}"
            self._mend(codes.BAD_KEYPOINTS, message, "keypoints dropped")
            return None
        height, width = self.found.size
        points = np.array(values, np.float64).reshape(count, 3)
        for remark in check_keypoints(points, (float(width), float(height))):
            self.found.remark(self.title, remark)
        return points

    def _attributes(self, given: Any) -> dict[str, AttributeValue]:
        found: dict[str, AttributeValue] = {}
        for spec in self.found.wanted.attributes if isinstance(given, Mapping) else ():
            value = given.get(spec.name)
            if value is None or (type(value) is int and value == -1):
                continue
            known = attribute_value(spec, value)
            if known is None:
                form = "names of its values" if spec.multi_label else "the name or index of one of its values"
                message = f"attribute '{spec.name}': expected {form}, got {value!r:.60}"
                self._mend(codes.BAD_ATTRIBUTE, message, "read as not labelled")
            else:
                found[spec.name] = known
        return found


def attribute_value(spec: AttributeSpec, value: Any) -> AttributeValue | None:
    """A JSON value of an attribute: a name or index, or names (or 0, 1 and -1 of every value) of a multi-label one."""
    if not spec.multi_label:
        if isinstance(value, str):
            return spec.values.index(value) if value in spec.values else None
        return value if type(value) is int and 0 <= value < len(spec.values) else None
    if not isinstance(value, list):
        return None
    if value and all(type(flag) in (int, bool) for flag in value):
        fits = len(value) == len(spec.values) and all(flag in (-1, 0, 1) for flag in value)
        return tuple(float(flag) for flag in value) if fits else None
    if not all(isinstance(name, str) and name in spec.values for name in value):
        return None
    return tuple(float(name in value) for name in spec.values)


def _title(entry: Mapping[str, Any], number: int) -> str:
    identity = entry.get("id")
    return f"annotation {number + 1}" if identity is None else f"annotation id {identity}"


def _number(value: Any) -> float | None:
    """A finite JSON number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e15 or math.isnan(value):
        return None
    return float(value)


def _polygon_flaw(part: Any) -> str | None:
    if not isinstance(part, list) or len(part) < 6 or len(part) % 2 or any(_number(value) is None for value in part):
        return "a polygon needs an even number of at least 6 finite numbers"
    found = flaw(np.array(part, np.float64).reshape(-1, 2))
    return found[1] if found else None
