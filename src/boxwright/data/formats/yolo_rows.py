# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""YOLO label files: text rows to boxes in pixels, each bad row named and explained.

Source: spec/datasets sections 1 and 7. A file whose every row is in order takes a short path; any doubt about any
row sends the whole file through the careful one, so both give the same boxes.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from boxwright.data.formats.base import Labels
from boxwright.data.policy import DataConfig
from boxwright.data.sample import Instances, Problem, Severity
from boxwright.vocabulary import KeypointSpec

COORDINATE_NAMES = ("centre x", "centre y", "width", "height")
SLACK = 0.01  # how far outside [0, 1] a coordinate may be and still be brought back
MAX_AREA_LOST = 0.01  # part of a box outside the image that is cut without a word: rounding of the labelling tool
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(nan|inf|infinity)", re.IGNORECASE)
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")


@dataclass(frozen=True, slots=True)
class RowRules:
    """What the rows of a dataset may hold."""

    class_ids: Mapping[int, int]  # the dataset's id -> compact index
    names: tuple[str, ...]
    keypoints: KeypointSpec | None
    config: DataConfig

    @property
    def fields_with_keypoints(self) -> int | None:
        """Fields of a pose row."""
        return None if self.keypoints is None else 5 + self.keypoints.count * self.keypoints.dims


class _RowError(Exception):
    def __init__(self, code: str, message: str, severity: Severity = "warning"):
        super().__init__(message)
        self.code, self.severity = code, severity


@dataclass(slots=True)
class _Row:
    label: int
    box: tuple[float, float, float, float]  # normalised xyxy
    remarks: list[tuple[str, str, str]] = field(default_factory=list)  # code, message, action


def read_rows(data: bytes, name: str, size: tuple[int, int], rules: RowRules) -> Labels:
    """The boxes of a label file in pixels of its image of `size` (height, width)."""
    labels = _read_clean(data, size, rules)
    return _read_carefully(data, name, size, rules) if labels is None else labels


# -- short path ----------------------------------------------------------------------------------------------------


def _read_clean(data: bytes, size: tuple[int, int], rules: RowRules) -> Labels | None:
    """The boxes of a file in which every row is `class cx cy w h` and needs no remark; None otherwise."""
    if b"_" in data or not data.isascii():
        return None
    rows = [fields for line in data.splitlines() if (fields := line.split())]
    if not rows or any(len(fields) != 5 for fields in rows) or len(rows) > rules.config.max_objects:
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
    boxes = _to_pixels(clipped, size)
    if not (boxes[:, 2:] > boxes[:, :2]).all():  # too thin for float32
        return None
    return Labels(Instances(boxes, np.array(indices, np.int64)), "found", rows=len(rows))


def _to_pixels(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    height, width = size
    return (boxes * np.array((width, height, width, height), np.float64)).astype(np.float32)


# -- careful path --------------------------------------------------------------------------------------------------


def _read_carefully(data: bytes, name: str, size: tuple[int, int], rules: RowRules) -> Labels:
    problems: list[Problem] = []
    rows: list[_Row] = []
    seen: dict[tuple[object, ...], int] = {}
    lines = _lines(data, name, problems)
    dropped = duplicates = total = 0
    for number, line in lines:
        total += 1
        try:
            row, key = _parse(line, size, rules)
        except _RowError as error:
            problems.append(Problem(name, number, error.code, str(error), "row dropped", error.severity))
            dropped += 1
            continue
        if key in seen:
            message = f"the same object as in line {seen[key]}"
            problems.append(Problem(name, number, "duplicate_row", message, "row dropped"))
            duplicates += 1
            continue
        seen[key] = number
        problems.extend(Problem(name, number, code, text, action) for code, text, action in row.remarks)
        rows.append(row)
    limit = rules.config.max_objects
    if len(rows) > limit:
        message = f"{len(rows)} objects; only the first {limit} are used (data.max_objects)"
        problems.append(Problem(name, None, "too_many_objects", message, f"{len(rows) - limit} rows dropped"))
        dropped += len(rows) - limit
        rows = rows[:limit]
    return Labels(
        _instances(rows, size), "found" if total else "empty", total, dropped,
        sum(bool(row.remarks) for row in rows), duplicates, tuple(problems),
    )  # fmt: skip


def _instances(rows: list[_Row], size: tuple[int, int]) -> Instances:
    if not rows:
        return Instances.empty()
    boxes = _to_pixels(np.array([row.box for row in rows], np.float64), size)
    return Instances(boxes, np.array([row.label for row in rows], np.int64))


def _lines(data: bytes, name: str, problems: list[Problem]) -> list[tuple[int, bytes]]:
    """Numbered lines that hold something, as UTF-8 bytes."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = data.decode("utf-16", errors="replace")
        problems.append(Problem(name, None, "utf16", "the file is UTF-16; save it as UTF-8", "decoded"))
        data = text.encode()
    data = data.removeprefix(b"\xef\xbb\xbf")
    return [(number, line) for number, line in enumerate(data.splitlines(), 1) if line.strip()]


def _parse(line: bytes, size: tuple[int, int], rules: RowRules) -> tuple[_Row, tuple[object, ...]]:
    try:
        fields = line.decode("utf-8").split()
    except UnicodeDecodeError as error:
        byte = line[error.start]
        raise _RowError("undecodable", f"byte 0x{byte:02x} is not UTF-8 text; save the file as UTF-8") from None
    _refuse_commas(fields)
    label, used = _class_of(fields, rules)
    values = _numbers(fields[used:], used)
    coordinates = _coordinates(values, rules)
    key = (label, *values)
    row = _Row(label, (0.0, 0.0, 0.0, 0.0))
    coordinates = _into_range(coordinates, rules, row.remarks)
    corners = _box_corners(coordinates) if len(coordinates) == 4 else _polygon_extent(coordinates)
    row.box = _clip(corners, row.remarks)
    x1, y1, x2, y2 = _to_pixels(np.array(row.box), size).tolist()
    if x2 <= x1 or y2 <= y1:
        raise _RowError("zero_area", "the box has zero area in pixels of its image")
    return row, key


def _refuse_commas(fields: list[str]) -> None:
    with_comma = [text for text in fields if "," in text]
    if not with_comma:
        return
    if len(fields) > 2 and all(_DECIMAL_COMMA.fullmatch(text) for text in with_comma):
        raise _RowError("decimal_comma", f"decimal comma in {with_comma[0]!r}; write a decimal point")
    raise _RowError("comma_separated", "fields are separated by commas; separate them by spaces")


def _class_of(fields: list[str], rules: RowRules) -> tuple[int, int]:
    """Compact index of the row's class and the number of fields that name it."""
    first = fields[0]
    if not _NUMBER.fullmatch(first):
        return _class_by_name(fields, rules)
    value = float(first)
    if not math.isfinite(value) or value != int(value):
        raise _RowError("class_not_integer", f"class {first} is not a whole number")
    if value < 0:
        raise _RowError("class_negative", f"class {first} is negative; classes start at 0")
    if int(value) not in rules.class_ids:
        raise _class_out_of_range(int(value), rules)
    return rules.class_ids[int(value)], 1


def _class_by_name(fields: list[str], rules: RowRules) -> tuple[int, int]:
    for used in range(1, len(fields)):
        name = " ".join(fields[:used])
        if name in rules.names:
            return rules.names.index(name), used
    raise _RowError("class_not_a_number", f"class {fields[0]!r} is neither a number nor one of the dataset's names")


def _class_out_of_range(value: int, rules: RowRules) -> _RowError:
    count, last = len(rules.class_ids), max(rules.class_ids)
    if last == count - 1:
        message = f"class {value} is outside 0..{last}; the dataset names {count} classes"
    else:
        message = f"class {value} is not one of the {count} class ids that the dataset names ({last} is the highest)"
    if value == last + 1:  # even when unknown classes may be skipped: every label may be off by one
        return _RowError("class_equals_count", message + "; do the labels count from 1?", "error")
    skip = rules.config.fix in ("skip", "all")
    return _RowError("class_out_of_range", message, "warning" if skip else "error")


def _numbers(fields: list[str], used: int) -> list[float]:
    values = []
    for position, text in enumerate(fields, used + 1):
        if not _NUMBER.fullmatch(text):
            raise _RowError("not_a_number", f"field {position}: expected a number, got {text[:20]!r}")
        value = float(text)
        if not math.isfinite(value):
            raise _RowError("not_finite", f"field {position}: expected a finite number, got {text}")
        values.append(value)
    return values


def _coordinates(values: list[float], rules: RowRules) -> list[float]:
    """Four numbers of a box, or six and more of a polygon."""
    count = 1 + len(values)
    if count == 5 or count == rules.fields_with_keypoints:
        return values[:4]
    if count == 6:
        if rules.config.drop_confidence:
            return values[:4]
        hint = "looks like predictions with a confidence; data.drop_confidence=true uses the first 5"
        raise _RowError("looks_like_predictions", f"expected 5 fields, got 6; {hint}")
    if rules.keypoints is not None:
        expected = f"5 or 5 + {rules.keypoints.count} x {rules.keypoints.dims} = {rules.fields_with_keypoints}"
        raise _RowError("bad_column_count", f"expected {expected} fields, got {count}")
    if count < 7:
        raise _RowError("bad_column_count", f"expected 5 fields (class, centre x, y, width, height), got {count}")
    if len(values) % 2:
        message = f"a polygon needs x and y of each point: expected an even number of coordinates, got {len(values)}"
        raise _RowError("odd_polygon", message)
    return values


def _into_range(values: list[float], rules: RowRules, remarks: list[tuple[str, str, str]]) -> list[float]:
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
            raise _RowError("coord_out_of_range", message + hint + pixels)
        remarks.append(("coord_clipped", message, "clipped"))
        result.append(min(max(value, 0.0), 1.0))
    return result


def _box_corners(values: list[float]) -> tuple[float, float, float, float]:
    cx, cy, w, h = values
    if w <= 0 or h <= 0:
        raise _RowError("zero_area", f"the box has zero area: width {w:g}, height {h:g}")
    return cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2


def _polygon_extent(values: list[float]) -> tuple[float, float, float, float]:
    points = np.array(values).reshape(-1, 2)
    if len(np.unique(points, axis=0)) < 3:
        raise _RowError("polygon_too_short", "a polygon needs at least 3 different points")
    offsets = points - points[0]
    farthest = offsets[np.abs(offsets).sum(axis=1).argmax()]
    if not (offsets[:, 0] * farthest[1] != offsets[:, 1] * farthest[0]).any():
        raise _RowError("zero_area", "the polygon has zero area: all its points lie on one line")
    (x1, y1), (x2, y2) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    return x1, y1, x2, y2


def _clip(
    corners: tuple[float, float, float, float], remarks: list[tuple[str, str, str]]
) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = corners
    area = (x2 - x1) * (y2 - y1)
    if area <= 0:
        raise _RowError("zero_area", "the box has zero area: it is too thin")
    box = max(x1, 0.0), max(y1, 0.0), min(x2, 1.0), min(y2, 1.0)
    kept = max(box[2] - box[0], 0) * max(box[3] - box[1], 0)
    if kept <= 0:
        raise _RowError("zero_area", "nothing of the box lies inside the image")
    if kept < (1 - MAX_AREA_LOST) * area:
        remarks.append(("box_clipped", f"{(1 - kept / area) * 100:.0f} % of the box lies outside the image", "clipped"))
    return box
