# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""YOLO label files: text rows to objects in pixels, each bad row named and explained.

A file of boxes whose every row is in order takes a short path; any doubt about any row sends the whole file through the
careful one, so both give the same boxes. A row is a class, a box or an outline, keypoints, attributes.
Source: spec/datasets 1 and 7, cases 1 to 19 and 28 to 36.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from boxwright.datasets import codes
from boxwright.datasets.formats.base import Labels
from boxwright.datasets.formats.collect import Collector, EntryError, clip_entry, lost_area
from boxwright.datasets.formats.declarations import columns
from boxwright.datasets.formats.objects import (
    MAX_AREA_LOST,
    AttributeValue,
    Box,
    ReadObject,
    Remark,
    Wanted,
    check_keypoints,
)
from boxwright.datasets.formats.oriented import oriented_corners
from boxwright.datasets.formats.shapes import crosses_itself, extent, flaw
from boxwright.datasets.policy import DataConfig
from boxwright.datasets.sample import Instances
from boxwright.vocabulary import TASKS, AttributeSpec, KeypointSpec

COORDINATE_NAMES = ("centre x", "centre y", "width", "height")
SLACK = 0.01  # how far outside [0, 1] a coordinate may be and still be brought back
_ROUNDING = 1e-6  # of a keypoint on the border; labels are written with six digits
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(nan|inf|infinity)", re.IGNORECASE)
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")


@dataclass(frozen=True, slots=True)
class RowRules:
    """What the rows of a dataset may hold."""

    class_ids: Mapping[int, int]  # the dataset's id -> compact index
    names: tuple[str, ...]
    keypoints: KeypointSpec | None
    config: DataConfig
    attributes: tuple[AttributeSpec, ...] = ()

    @property
    def keypoint_columns(self) -> int:
        """Fields of a pose row behind its box."""
        return 0 if self.keypoints is None else self.keypoints.count * self.keypoints.dims


@dataclass(slots=True)
class Row:
    """One row, understood. Its remarks are said once the row is used: not of a row that repeats another."""

    item: ReadObject
    key: tuple[object, ...]  # equal for equal rows
    remarks: list[Remark] = field(default_factory=list)


def read_rows(data: bytes, name: str, size: tuple[int, int], rules: RowRules) -> Labels:
    """The objects of a label file in pixels of its image of `size` (height, width)."""
    labels = _read_clean(data, size, rules)
    return _read_carefully(data, name, size, rules) if labels is None else labels


# -- short path ----------------------------------------------------------------------------------------------------


def _read_clean(data: bytes, size: tuple[int, int], rules: RowRules) -> Labels | None:
    """The boxes of a file in which every row is `class cx cy w h` and needs no remark; None otherwise."""
    config = rules.config
    if (
        not TASKS[config.task].boxes_only
        or config.keep != "task"
        or rules.attributes
        or b"_" in data
        or not data.isascii()
    ):
        return None
    rows = [fields for line in data.splitlines() if (fields := line.split())]
    if not rows or any(len(fields) != 5 for fields in rows) or len(rows) > config.max_objects:
        return None
    try:
        values = np.array(rows).astype(np.float64)
        indices = [rules.class_ids[value] for value in values[:, 0].tolist()]  # 3.0 and 3 are the same key
    except (ValueError, KeyError):
        return None
    centre, wh = values[:, 1:3], values[:, 3:5]
    # Written so that NaN fails too.
    if not (values[:, 1:] >= 0).all() or not (values[:, 1:] <= 1).all() or not (wh > 0).all():
        return None
    corners = np.concatenate((centre - wh / 2, centre + wh / 2), axis=1)
    clipped = corners.clip(0, 1)
    kept = (clipped[:, 2:] - clipped[:, :2]).prod(axis=1)
    if not (kept >= (1 - MAX_AREA_LOST) * wh.prod(axis=1)).all() or len({row.tobytes() for row in values}) < len(rows):
        return None
    height, width = size
    boxes = (clipped * np.array((width, height, width, height), np.float64)).astype(np.float32)
    if not (boxes[:, 2:] > boxes[:, :2]).all():  # too thin for float32
        return None
    return Labels(Instances(boxes, np.array(indices, np.int64)), "found", rows=len(rows))


# -- careful path --------------------------------------------------------------------------------------------------


def _read_carefully(data: bytes, name: str, size: tuple[int, int], rules: RowRules) -> Labels:
    wanted = Wanted.of(rules.config, rules.keypoints, rules.attributes)
    found = Collector(name, size, rules.config, wanted)
    lines = _lines(data, found)
    for number, line in lines:
        try:
            row = parse_row(line, size, rules)
        except EntryError as error:
            found.drop("", error, number)
            continue
        if found.add(row.item, row.key, "", number):
            for remark in row.remarks:
                found.remark("", remark, number)
    _say_plain_boxes(found)
    return found.labels(len(lines))


def _say_plain_boxes(found: Collector) -> None:
    """A finding about rows that say less than the task learns."""
    facts = TASKS[found.config.task]
    used = found.limit()
    plain = sum(not item.polygons and item.corners is None for item in used)
    if plain and (facts.outlines or facts.oriented):
        code, lacking = (codes.OUTLINE_MISSING, "an outline") if facts.outlines else (codes.ANGLE_MISSING, "corners")
        found.say(code, f"{plain} of {len(used)} rows are boxes without {lacking}", "read as boxes")


def _lines(data: bytes, found: Collector) -> list[tuple[int, bytes]]:
    """Numbered lines that hold something, as UTF-8 bytes."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = data.decode("utf-16", errors="replace")
        found.say(codes.UTF16, "the file is UTF-16; save it as UTF-8", "decoded")
        data = text.encode()
    data = data.removeprefix(b"\xef\xbb\xbf")
    return [(number, line) for number, line in enumerate(data.splitlines(), 1) if line.strip()]


# -- one row -------------------------------------------------------------------------------------------------------


def parse_row(line: bytes, size: tuple[int, int], rules: RowRules) -> Row:
    """The object of a row, px of its image of `size` (height, width).

    Raises:
        EntryError: the row cannot be used; the message says why.
    """
    try:
        fields = line.decode("utf-8").split()
    except UnicodeDecodeError as error:
        byte = line[error.start]
        raise EntryError(codes.UNDECODABLE, f"byte 0x{byte:02x} is not UTF-8 text; save the file as UTF-8") from None
    _refuse_commas(fields)
    label, used = _class_of(fields, rules)
    values = _numbers(fields[used:], used)
    parts = _split(values, rules)
    read = ReadObject(label, (0.0, 0.0, 0.0, 0.0))
    row = Row(read, (label, *values))
    if len(parts.shape) == 4:
        whole = _read_box(_into_range(parts.shape, rules, row.remarks), size)
    elif TASKS[rules.config.task].oriented:
        whole = _read_corners(parts.shape, size, row)
    else:
        whole = _read_outline(_into_range(parts.shape, rules, row.remarks), size, row, rules)
    read.box, kept = clip_entry(whole, size)
    if read.corners is None and (lost := lost_area(kept)):  # oriented boxes may leave the image
        row.remarks.append(Remark(codes.BOX_CLIPPED, lost, "clipped"))
    read.keypoints = _read_keypoints(parts.keypoints, size, rules, row.remarks)
    read.attributes = _read_attributes(parts.attributes, rules.attributes, row.remarks)
    return row


# -- fields --------------------------------------------------------------------------------------------------------


def _refuse_commas(fields: list[str]) -> None:
    with_comma = [text for text in fields if "," in text]
    if not with_comma:
        return
    if len(fields) > 2 and all(_DECIMAL_COMMA.fullmatch(text) for text in with_comma):
        raise EntryError(codes.DECIMAL_COMMA, f"decimal comma in {with_comma[0]!r}; write a decimal point")
    raise EntryError(codes.COMMA_SEPARATED, "fields are separated by commas; separate them by spaces")


def _class_of(fields: list[str], rules: RowRules) -> tuple[int, int]:
    """Compact index of the row's class and the number of fields that name it."""
    first = fields[0]
    if not _NUMBER.fullmatch(first):
        return _class_by_name(fields, rules)
    value = float(first)
    if not math.isfinite(value) or value != int(value):
        raise EntryError(codes.CLASS_NOT_INTEGER, f"class {first} is not a whole number")
    if value < 0:
        raise EntryError(codes.CLASS_NEGATIVE, f"class {first} is negative; classes start at 0")
    if int(value) not in rules.class_ids:
        raise _class_out_of_range(int(value), rules)
    return rules.class_ids[int(value)], 1


def _class_by_name(fields: list[str], rules: RowRules) -> tuple[int, int]:
    for used in range(1, len(fields)):
        name = " ".join(fields[:used])
        if name in rules.names:
            return rules.names.index(name), used
    raise EntryError(
        codes.CLASS_NOT_A_NUMBER, f"class {fields[0]!r} is neither a number nor one of the dataset's names"
    )


def _class_out_of_range(value: int, rules: RowRules) -> EntryError:
    count, last = len(rules.class_ids), max(rules.class_ids)
    if last == count - 1:
        message = f"class {value} is outside 0..{last}; the dataset names {count} classes"
    else:
        message = f"class {value} is not one of the {count} class ids that the dataset names ({last} is the highest)"
    if value == last + 1:  # even when unknown classes may be skipped: every label may be off by one
        return EntryError(codes.CLASS_EQUALS_COUNT, message + "; do the labels count from 1?", "error")
    skip = rules.config.fix in ("skip", "all")
    return EntryError(codes.CLASS_OUT_OF_RANGE, message, "warning" if skip else "error")


def _numbers(fields: list[str], used: int) -> list[float]:
    try:
        values = list(map(float, fields))
    except ValueError:
        values = []
    if len(values) == len(fields) and all(map(math.isfinite, values)) and not any("_" in text for text in fields):
        return values
    for position, text in enumerate(fields, used + 1):
        if not _NUMBER.fullmatch(text):
            raise EntryError(codes.NOT_A_NUMBER, f"field {position}: expected a number, got {text[:20]!r}")
        if not math.isfinite(float(text)):
            raise EntryError(codes.NOT_FINITE, f"field {position}: expected a finite number, got {text}")
    return values


@dataclass(frozen=True, slots=True)
class _Parts:
    """The numbers of a row by what they say."""

    shape: list[float]  # 4 of a box, or 6 and more of a polygon
    keypoints: list[float]
    attributes: list[float]


def _split(values: list[float], rules: RowRules) -> _Parts:
    behind = columns(rules.attributes)
    count = len(values)
    points = rules.keypoint_columns
    if count in (4 + points + behind, 4 + behind):
        end = count - behind
        return _Parts(values[:4], values[4:end], values[end:])
    if count in (4 + points, 4):  # without the declared attributes
        return _Parts(values[:4], values[4:], [])
    if points or behind:
        return _Parts(_polygon(values[: count - behind], count, rules), [], values[count - behind :])
    if count == 5:
        if rules.config.drop_confidence:
            return _Parts(values[:4], [], [])
        hint = "looks like predictions with a confidence; data.drop_confidence=true uses the first 5"
        raise EntryError(codes.LOOKS_LIKE_PREDICTIONS, f"expected 5 fields, got 6; {hint}")
    return _Parts(_polygon(values, count, rules), [], [])


def _polygon(values: list[float], count: int, rules: RowRules) -> list[float]:
    behind = columns(rules.attributes)
    more = f" and {behind} of attributes" if behind else ""
    if rules.keypoints is not None:
        spec = rules.keypoints
        expected = f"5 or 5 + {spec.count} x {spec.dims} = {5 + rules.keypoint_columns}"
        raise EntryError(codes.BAD_COLUMN_COUNT, f"expected {expected} fields{more}, got {count + 1}")
    if len(values) < 6:
        expected = "expected 5 fields (class, centre x, y, width, height)"
        raise EntryError(codes.BAD_COLUMN_COUNT, f"{expected}{more}, got {count + 1}")
    if len(values) % 2:
        message = "a polygon needs x and y of each point: expected an even number of coordinates"
        raise EntryError(codes.ODD_POLYGON, f"{message}{more}, got {count}")
    return values


# -- boxes and outlines --------------------------------------------------------------------------------------------


def _into_range(values: list[float], rules: RowRules, remarks: list[Remark]) -> list[float]:
    if min(values) >= 0 and max(values) <= 1:
        return values
    result = []
    for index, value in enumerate(values):
        if 0 <= value <= 1:
            result.append(value)
            continue
        what = COORDINATE_NAMES[index] if len(values) == 4 else f"{'xy'[index % 2]} of point {index // 2 + 1}"
        message = f"{what} is {value:g}, outside 0..1"
        below = -SLACK <= value < 0
        if not (1 < value <= 1 + SLACK or (below and rules.config.fix in ("clip", "all"))):
            hint = "; data.fix=clip moves it to 0" if below else ""
            pixels = "; coordinates are parts of the image size, not pixels" if value > 2 else ""
            raise EntryError(codes.COORD_OUT_OF_RANGE, message + hint + pixels)
        remarks.append(Remark(codes.COORD_CLIPPED, message, "clipped"))
        result.append(min(max(value, 0.0), 1.0))
    return result


def _read_box(values: list[float], size: tuple[int, int]) -> Box:
    cx, cy, w, h = values
    if w <= 0 or h <= 0:
        raise EntryError(codes.ZERO_AREA, f"the box has zero area: width {w:g}, height {h:g}")
    if cx - w / 2 >= cx + w / 2 or cy - h / 2 >= cy + h / 2:
        raise EntryError(codes.ZERO_AREA, "the box has zero area: it is too thin")
    height, width = size
    return (cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height


def _read_outline(values: list[float], size: tuple[int, int], row: Row, rules: RowRules) -> Box:
    points = np.array(values).reshape(-1, 2)
    if (found := flaw(points)) is not None:
        raise EntryError(*found)
    if TASKS[rules.config.task].outlines and crosses_itself(points):
        row.remarks.append(Remark(codes.POLYGON_CROSSES_ITSELF, "the outline crosses itself", severity="note"))
    outline = points * size[::-1]
    row.item.polygons = (outline,)
    return extent(outline)


def _read_corners(values: list[float], size: tuple[int, int], row: Row) -> Box:
    points = np.array(values).reshape(-1, 2) * size[::-1]
    try:
        corners, remarks = oriented_corners(points, size)
    except EntryError as error:
        hint = "; coordinates are parts of the image size, not pixels" if max(values) > 2 else ""
        raise EntryError(error.code, f"{error}{hint}") from None
    row.remarks += remarks
    row.item.corners = corners
    row.item.polygons = (points,) if len(points) != 4 else ()
    return extent(corners)


# -- keypoints and attributes --------------------------------------------------------------------------------------


def _read_keypoints(
    values: list[float], size: tuple[int, int], rules: RowRules, remarks: list[Remark]
) -> np.ndarray | None:
    if not values or rules.keypoints is None:
        return None
    given = np.array(values).reshape(rules.keypoints.count, rules.keypoints.dims)
    points = np.zeros((len(given), 3))
    points[:, :2] = given[:, :2]
    points[:, 2] = given[:, 2] if given.shape[1] == 3 else np.where((given < 0).any(axis=1), 0, 2)
    remarks += check_keypoints(points, (1.0, 1.0), _ROUNDING)
    points[:, :2] *= size[::-1]
    return points


def _read_attributes(
    values: list[float], specs: tuple[AttributeSpec, ...], remarks: list[Remark]
) -> dict[str, AttributeValue]:
    found: dict[str, AttributeValue] = {}
    start = 0
    for spec in specs if values else ():
        count = len(spec.values) if spec.multi_label else 1
        part = values[start : start + count]
        start += count
        allowed = (-1.0, 0.0, 1.0) if spec.multi_label else tuple(float(i) for i in range(-1, len(spec.values)))
        wrong = [value for value in part if value not in allowed]
        if wrong:
            expected = "-1, 0 or 1" if spec.multi_label else f"-1 to {len(spec.values) - 1}"
            message = f"attribute '{spec.name}': expected {expected}, got {wrong[0]:g}"
            remarks.append(Remark(codes.BAD_ATTRIBUTE, message, "read as not labelled"))
            part = [value if value in allowed else -1.0 for value in part]
        found[spec.name] = tuple(part) if spec.multi_label else int(part[0])
    return found
