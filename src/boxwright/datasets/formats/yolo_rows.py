# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""YOLO label files: text rows to objects in pixels, each bad row named and explained.

Source: spec/datasets 1 and 7. A file of boxes whose every row is in order takes a short path; any doubt about
any row sends the whole file through the careful one, so both give the same boxes.
"""

import numpy as np

from boxwright.datasets import codes
from boxwright.datasets.formats.base import Labels
from boxwright.datasets.formats.objects import MAX_AREA_LOST, Wanted, instances_of
from boxwright.datasets.formats.yolo_row import Row, RowError, RowRules, parse_row
from boxwright.datasets.sample import Instances, Problem

__all__ = ["RowRules", "read_rows"]


def read_rows(data: bytes, name: str, size: tuple[int, int], rules: RowRules) -> Labels:
    """The objects of a label file in pixels of its image of `size` (height, width)."""
    labels = _read_clean(data, size, rules)
    return _read_carefully(data, name, size, rules) if labels is None else labels


# -- short path ----------------------------------------------------------------------------------------------------


def _read_clean(data: bytes, size: tuple[int, int], rules: RowRules) -> Labels | None:
    """The boxes of a file in which every row is `class cx cy w h` and needs no remark; None otherwise."""
    config = rules.config
    if config.task != "detect" or config.keep != "task" or rules.attributes or b"_" in data or not data.isascii():
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
    problems: list[Problem] = []
    rows: list[Row] = []
    seen: dict[tuple[object, ...], int] = {}
    dropped = duplicates = total = 0
    for number, line in _lines(data, name, problems):
        total += 1
        try:
            row = parse_row(line, size, rules)
        except RowError as error:
            problems.append(Problem(name, number, error.code, str(error), "row dropped", error.severity))
            dropped += 1
            continue
        if row.key in seen:
            message = f"the same object as in line {seen[row.key]}"
            problems.append(Problem(name, number, codes.DUPLICATE_ROW, message, "row dropped"))
            duplicates += 1
            continue
        seen[row.key] = number
        problems.extend(Problem(name, number, r.code, r.message, r.action, r.severity) for r in row.remarks)
        rows.append(row)
    limit = rules.config.max_objects
    if len(rows) > limit:
        message = f"{len(rows)} objects; only the first {limit} are used (data.max_objects)"
        problems.append(Problem(name, None, codes.TOO_MANY_OBJECTS, message, f"{len(rows) - limit} rows dropped"))
        dropped += len(rows) - limit
        rows = rows[:limit]
    problems += _plain_boxes(rows, name, rules)
    wanted = Wanted.of(rules.config, rules.keypoints, rules.attributes)
    return Labels(
        instances_of([row.item for row in rows], wanted), "found" if total else "empty", total, dropped,
        sum(row.fixed for row in rows), duplicates, tuple(problems),
    )  # fmt: skip


def _plain_boxes(rows: list[Row], name: str, rules: RowRules) -> list[Problem]:
    """A finding about rows that say less than the task learns."""
    plain = sum(row.plain_box for row in rows)
    if rules.config.task not in ("segment", "obb") or not plain:
        return []
    code, lacking = (
        (codes.OUTLINE_MISSING, "an outline") if rules.config.task == "segment" else (codes.ANGLE_MISSING, "corners")
    )
    return [Problem(name, None, code, f"{plain} of {len(rows)} rows are boxes without {lacking}", "read as boxes")]


def _lines(data: bytes, name: str, problems: list[Problem]) -> list[tuple[int, bytes]]:
    """Numbered lines that hold something, as UTF-8 bytes."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = data.decode("utf-16", errors="replace")
        problems.append(Problem(name, None, codes.UTF16, "the file is UTF-16; save it as UTF-8", "decoded"))
        data = text.encode()
    data = data.removeprefix(b"\xef\xbb\xbf")
    return [(number, line) for number, line in enumerate(data.splitlines(), 1) if line.strip()]
