# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Reports in words and as JSON: what was used, what was fixed in memory, what was refused."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from boxwright.datasets.cache import usable_cache_folder, write_atomically
from boxwright.datasets.sample import DatasetHeader, Problem, Report, Split

SHOWN = 10  # problems printed in an error; the report file has all of them


def report_to_dict(report: Report) -> dict[str, Any]:
    """Plain values of a report, as in spec/datasets 8."""
    return {**asdict(report), "per_class_counts": dict(report.per_class_counts), "left_out": dict(report.left_out),
            "problems": [asdict(problem) for problem in report.problems]}  # fmt: skip


def summary_line(split: Split, report: Report) -> str:
    """One line on a split: what is used, and how much was fixed or dropped for which reason."""
    boxes = sum(report.per_class_counts.values())
    parts = [f"{split}: {report.images} images, {boxes} boxes"]
    counts = (
        (report.missing, "without a label file"),
        (report.empty, "with an empty label file"),
        (report.corrupt, "images dropped"),
        (report.rows_dropped, "rows dropped"),
        (report.rows_fixed, "rows fixed in memory"),
        (report.duplicates, "duplicate rows removed"),
    )
    parts += [f"{count} {what}" for count, what in counts if count]
    codes = Counter(problem.code for problem in report.problems if problem.severity != "note")
    if codes:
        parts.append("problems: " + ", ".join(f"{code} {count}" for code, count in codes.most_common()))
    return "; ".join(parts)


def error_text(header: DatasetHeader, split: Split, report: Report) -> str:
    """What stops training, the first few in full, and where to read the rest."""
    errors = [problem for problem in report.problems if problem.severity == "error"]
    lines = [f"{header.source}: the {split} split has {_count(errors)} that must be decided before training:"]
    lines += [f"  {problem}" for problem in errors[:SHOWN]]
    if len(errors) > SHOWN:
        lines.append(f"  ... and {len(errors) - SHOWN} more: " + _by_code(errors))
    lines.append(summary_line(split, report))
    file = write_report(header, split, report)
    lines.append(f"full report: {file}" if file else f"full report: boxwright check {header.source}")
    return "\n".join(lines)


def write_report(header: DatasetHeader, split: Split, report: Report) -> Path | None:
    """Write a report as JSON into the cache folder; None where that is not possible."""
    folder = usable_cache_folder("reports", header.root)
    if folder is None:
        return None
    name = f"{header.root.resolve().name}-{split}.json"
    content = json.dumps({"source": str(header.source), "split": split, **report_to_dict(report)}, indent=1)
    return folder / name if write_atomically(folder / name, lambda file: _put(file, content)) else None


def _put(file: Any, content: str) -> None:
    file.write(content.encode("utf-8", "surrogateescape"))


def _count(problems: Sequence[Problem]) -> str:
    return "1 problem" if len(problems) == 1 else f"{len(problems)} problems"


def _by_code(problems: Iterable[Problem]) -> str:
    return ", ".join(f"{code} {count}" for code, count in Counter(p.code for p in problems).most_common())
