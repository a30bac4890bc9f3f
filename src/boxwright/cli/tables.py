# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Results as rich tables. Imports no torch."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from boxwright.datasets.checks import SplitStatistics
    from boxwright.datasets.sample import Problem, Report, Split
    from boxwright.evaluation.result import EvaluationResult, Kind

SEVERITY_STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}  # worst first
KIND_NAMES = {"box": "boxes", "mask": "masks", "pose": "keypoints", "obb": "oriented boxes", "image": "images"}
OBJECT_COLUMNS = {
    "precision": "precision",
    "recall": "recall",
    "ap50": "mAP50",
    "ap50_95": "mAP50-95",
    "curve_ap50": "curve AP50",
    "curve_ap50_95": "curve AP50-95",
}
IMAGE_COLUMNS = {"precision": "precision", "recall": "recall", "f1": "F1", "top1": "top-1", "top5": "top-5"}
BAR_WIDTH = 30  # characters of the longest bar of the class-count chart


def table(title: str, text: Sequence[str], numbers: Sequence[str]) -> Table:
    """An empty table: text columns to the left, number columns to the right."""
    made = Table(title=escape(title), box=box.SIMPLE, title_justify="left", title_style="bold", pad_edge=False)
    for name in text:
        made.add_column(name, overflow="fold")
    for name in numbers:
        made.add_column(name, justify="right", no_wrap=True)
    return made


def class_results(result: "EvaluationResult", title: str) -> "RenderableType":
    """Precision, recall and mAP of all classes together and of each, one table for each kind of comparison.

    mAP is the COCO evaluator's. The curve columns are the area under the 101-point curve over all kept detections,
    which other YOLO trainers print. Of whole images the columns are top-1 and top-5.
    """
    several = len(result.kinds) > 1
    made = [_kind_table(result, kind, f"{title}, {KIND_NAMES[kind]}" if several else title) for kind in result.kinds]
    told = [
        f"{name.partition('/')[2]} {_score(value)}" for name, value in result.metrics.items() if "attributes/" in name
    ]
    if told:
        made[-1].caption = "\n".join(
            [*([str(made[-1].caption)] if made[-1].caption else []), f"attributes: {', '.join(told)}"]
        )
        made[-1].caption_justify = "left"
    return made[0] if len(made) == 1 else Group(*made)


def _kind_table(result: "EvaluationResult", kind: "Kind", title: str) -> Table:
    columns = IMAGE_COLUMNS if kind == "image" else OBJECT_COLUMNS
    made = table(title, ["class"], ["images", *(["objects"] if kind != "image" else []), *columns.values()])
    lines = result.tables[kind]
    labelled = [row for row in lines if row.instances]
    total = result.total_of(kind)
    for row in [total, *labelled] if len(lines) > 1 else [*lines]:
        counts = [str(row.images), *([str(row.instances)] if kind != "image" else [])]
        scores = [_score(getattr(row, name)) for name in columns]
        made.add_row(escape(row.name), *counts, *scores, style="bold" if row is total else None)
    captions = []
    sizes = {size: result.metrics.get(f"{kind}/ap_{size}", -1.0) for size in ("small", "medium", "large")}
    if any(value >= 0 for value in sizes.values()):
        captions.append(f"mAP50-95 by size: {', '.join(f'{size} {_score(value)}' for size, value in sizes.items())}")
    absent = len(lines) - len(labelled)
    if absent and len(lines) > 1:
        noun = "image" if kind == "image" else "object"
        captions.append(f"{absent} of {len(lines)} classes have no {noun} in this split and are not shown")
    if captions:
        made.caption = "\n".join(captions)
        made.caption_justify = "left"
    return made


def _score(value: float) -> str:
    return "-" if math.isnan(value) or value < 0 else f"{value:.3f}"


def problem_line(problem: "Problem") -> str:
    """One finding about a user's file, as markup: one line to search and copy, whatever the terminal's width."""
    where = problem.file if problem.line is None else f"{problem.file}, line {problem.line}"
    style = SEVERITY_STYLES[problem.severity]
    done = "" if problem.action == "none" else f" [dim]({escape(problem.action)})[/]"
    return f"[{style}]{problem.severity}[/] {escape(where)}: {escape(problem.message)}{done}"


def splits(reports: "Mapping[Split, Report]", statistics: "Mapping[Split, SplitStatistics]") -> Table:
    """What each split holds; one column per split, so that it fits a narrow terminal."""
    made = table("splits", [""], list(reports))
    rows: dict[str, Callable[[Report], int]] = {
        "images": lambda r: r.images,
        "images that cannot be used": lambda r: r.corrupt,
        "label files": lambda r: r.labels_found,
        "images without a label file": lambda r: r.missing,
        "empty label files": lambda r: r.empty,
        "objects": lambda r: r.rows,
        "objects fixed in memory": lambda r: r.rows_fixed,
        "objects dropped": lambda r: r.rows_dropped,
        "duplicate objects": lambda r: r.duplicates,
    }
    for name, count in rows.items():
        made.add_row(name, *(str(count(report)) for report in reports.values()))
    found = [statistics.get(split) for split in reports]
    made.add_row("objects per image: mean, most", *(_or_dash(s, _per_image) for s in found))
    made.add_row("object side px: 10, 50, 90 %", *(_or_dash(s, _sides) for s in found))
    made.add_row("image size px, most common", *(_or_dash(s, _image_size) for s in found))
    return made


def _or_dash(statistics: "SplitStatistics | None", text: "Callable[[SplitStatistics], str]") -> str:
    return "-" if statistics is None or not statistics.images else text(statistics)


def _per_image(statistics: "SplitStatistics") -> str:
    mean, most = statistics.boxes_per_image
    return f"{mean:.1f}, {most}"


def _sides(statistics: "SplitStatistics") -> str:
    return ", ".join(f"{side:.0f}" for side in statistics.box_sides) if statistics.boxes else "-"


def _image_size(statistics: "SplitStatistics") -> str:
    if not statistics.image_sizes:
        return "-"
    height, width = max(statistics.image_sizes, key=lambda size: statistics.image_sizes[size])
    others = len(statistics.image_sizes) - 1
    return f"{width}x{height}" + (f" + {others} other" if others else "")


def counted(count: int, noun: str) -> str:
    """A number and its noun.

    >>> counted(1, "error"), counted(2, "error")
    ('1 error', '2 errors')
    """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def class_counts(names: Sequence[str], counts: Mapping[str, Sequence[int]]) -> Table:
    """Objects of each class in each split, and a bar of their sum."""
    made = table("classes", ["class"], [*counts, "all"])
    made.add_column("")
    sums = [sum(int(of_split[i]) for of_split in counts.values()) for i in range(len(names))]
    longest = max([*sums, 1])
    for i, name in enumerate(names):
        bar = "█" * math.ceil(sums[i] / longest * BAR_WIDTH)
        made.add_row(escape(name), *(str(int(of_split[i])) for of_split in counts.values()), str(sums[i]), bar)
    return made
