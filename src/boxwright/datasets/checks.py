# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""`boxwright check`: everything a person should know about a dataset before training on it. Imports no torch."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from boxwright.datasets import codes
from boxwright.datasets.dataset import all_labels, scan_split
from boxwright.datasets.formats import open_dataset
from boxwright.datasets.policy import DataConfig
from boxwright.datasets.report import report_to_dict
from boxwright.datasets.sample import DatasetHeader, Problem, Records, Report, Split
from boxwright.errors import DataError
from boxwright.vocabulary import TASKS

DEFAULT_CONFIG = DataConfig()
_NAMED = 5  # files named in a message


@dataclass(frozen=True, slots=True)
class SplitStatistics:
    """Numbers of one split that are worth a look."""

    images: int
    backgrounds: int  # images without objects or a class of their own
    boxes: int
    class_counts: tuple[int, ...]  # objects, or images that have a class, by compact class index
    image_sizes: Mapping[tuple[int, int], int]  # (height, width) px -> images, most frequent first
    boxes_per_image: tuple[float, int]  # mean, maximum
    box_sides: tuple[float, float, float]  # px, 10 %, 50 % and 90 % quantile of sqrt(width * height); 0 without boxes


@dataclass(frozen=True, slots=True)
class DatasetCheck:
    """The result of checking every split of a dataset."""

    source: Path
    header: DatasetHeader | None  # None when the dataset cannot be opened
    reports: Mapping[Split, Report]
    statistics: Mapping[Split, SplitStatistics]
    problems: tuple[Problem, ...]  # all of them: of the header, of each split, and between splits

    @property
    def ok(self) -> bool:
        """No problem is an error."""
        return all(problem.severity != "error" for problem in self.problems)

    def to_dict(self) -> dict[str, Any]:
        """The machine-readable report: plain values only."""
        header = self.header
        return {
            "source": str(self.source),
            "ok": self.ok,
            "format": header.format if header else None,
            "task": header.task if header else None,
            "names": list(header.names) if header else [],
            "class_ids": list(header.class_ids) if header else [],
            "reports": {split: report_to_dict(report) for split, report in self.reports.items()},
            "statistics": {split: _plain(numbers) for split, numbers in self.statistics.items()},
            "problems": [asdict(problem) for problem in self.problems],
        }


def check_dataset(
    source: str | Path,
    config: DataConfig = DEFAULT_CONFIG,
    on_progress: Callable[[Split, int, int], None] | None = None,
) -> DatasetCheck:
    """Read and check every split; findings are returned, never raised.

    Labels are read for the task that the dataset says it is made for, unless `config` names one that learns more than
    boxes.
    """
    path = Path(source)
    try:
        header = open_dataset(source, config.names)
    except DataError as error:
        return DatasetCheck(path, None, {}, {}, (_from_error(path, error),))
    if TASKS[config.task].boxes_only and header.task is not None:
        config = replace(config, task=header.task)
    problems, between = list(header.problems), list[Problem]()
    splits: dict[Split, Records] = {}
    for split in header.splits:
        progress = None if on_progress is None else _for_split(on_progress, split)
        try:
            splits[split] = scan_split(header, split, config, progress)
        except DataError as error:
            problems.append(_from_error(path, error))
        else:
            between += splits[split].report.problems
    between += find_overlap(splits)
    between += _untrained_classes(header, splits)
    problems += between
    if config.strict:
        problems = [replace(p, severity="error") if p.severity == "warning" else p for p in problems]
    reports = {split: records.report for split, records in splits.items()}
    statistics = {split: split_statistics(records) for split, records in splits.items()}
    return DatasetCheck(path, header, reports, statistics, tuple(problems))


def class_table(check: DatasetCheck) -> tuple[tuple[str, ...], Mapping[Split, Int64[np.ndarray, " classes"]]]:
    """Class names, and the number of boxes of each class in each split: the numbers of a class-count plot."""
    names = check.header.names if check.header else ()
    return names, {
        split: np.array(numbers.class_counts, np.int64) for split, numbers in check.statistics.items()
    }  # fmt: skip


def split_statistics(records: Records) -> SplitStatistics:
    """Counts and sizes of one split."""
    per_image = [len(record.instances) for record in records.records]
    background = [not len(record.instances) and record.image_label is None for record in records.records]
    boxes = np.concatenate([np.zeros((0, 4), np.float32), *(record.instances.boxes for record in records.records)])
    labels = all_labels(records.records)
    sides = np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1, dtype=np.float64))
    low, middle, high = np.quantile(sides, (0.1, 0.5, 0.9)).tolist() if len(sides) else (0.0, 0.0, 0.0)
    return SplitStatistics(
        images=len(per_image),
        backgrounds=sum(background),
        boxes=len(boxes),
        class_counts=tuple(np.bincount(labels, minlength=len(records.header.names)).tolist()),
        image_sizes=dict(Counter(record.size for record in records.records).most_common()),
        boxes_per_image=(len(boxes) / max(len(per_image), 1), max(per_image, default=0)),
        box_sides=(low, middle, high),
    )


def find_overlap(splits: Mapping[Split, Records]) -> list[Problem]:
    """Warnings about images that two splits share: the same file, or the same bytes in two files."""
    problems = []
    facts = {split: _file_facts(records) for split, records in splits.items()}
    digests: dict[Path, str] = {}
    order = list(splits)
    for position, first in enumerate(order):
        for second in order[position + 1 :]:
            shared, equal = _shared(facts[first], facts[second], digests)
            where = f"{first} and {second}"
            if shared:
                message = (
                    f"{len(shared)} images are in both splits, so the measured quality is too good: {_few(shared)}"
                )
                problems.append(Problem(where, None, codes.SPLITS_SHARE_FILES, message, "none"))
            if equal:
                message = f"{len(equal)} images have equal bytes in both splits: {_few(equal)}"
                problems.append(Problem(where, None, codes.SPLITS_SHARE_CONTENT, message, "none"))
    return problems


# -- helpers -------------------------------------------------------------------------------------------------------

_Facts = dict[tuple[int, int], tuple[Path, int]]  # (device, inode) -> path, bytes


def _file_facts(records: Records) -> _Facts:
    facts: _Facts = {}
    for record in records.records:
        try:
            stat = record.image.stat()
        except OSError:
            continue
        identity = (stat.st_dev, stat.st_ino) if stat.st_ino else (0, hash(record.image.resolve()))
        facts[identity] = record.image, stat.st_size
    return facts


def _shared(first: _Facts, second: _Facts, digests: dict[Path, str]) -> tuple[list[str], list[str]]:
    """Names of images that are one file, and pairs of different files with equal bytes."""
    shared = [first[identity][0].name for identity in first if identity in second]
    by_size: dict[int, list[Path]] = defaultdict(list)
    for identity, (path, size) in first.items():
        if identity not in second:
            by_size[size].append(path)
    equal = []
    for identity, (path, size) in second.items():
        if identity in first or size not in by_size:
            continue
        twin = next((other for other in by_size[size] if _digest(other, digests) == _digest(path, digests)), None)
        if twin is not None:
            equal.append(f"{twin.name} = {path.name}")
    return sorted(shared), sorted(equal)


def _digest(path: Path, digests: dict[Path, str]) -> str:
    if path not in digests:
        try:
            digests[path] = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError:
            digests[path] = str(path)
    return digests[path]


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")


def _untrained_classes(header: DatasetHeader, splits: Mapping[Split, Records]) -> list[Problem]:
    if "train" not in splits or not splits["train"].records:
        return []
    trained = splits["train"].report.per_class_counts
    absent = [name for name in dict.fromkeys(header.names) if not trained.get(name)]
    if not absent:
        return []
    message = f"{len(absent)} of {len(header.names)} classes have no object in the train split: {_few(absent)}"
    return [Problem(str(header.source), None, codes.CLASS_WITHOUT_OBJECTS, message, "none", "note")]


def _from_error(path: Path, error: DataError) -> Problem:
    return Problem(str(path), None, codes.CANNOT_READ, str(error).removeprefix(f"{path}: "), "none", "error")


def _for_split(on_progress: Callable[[Split, int, int], None], split: Split) -> Callable[[int, int], None]:
    return lambda done, total: on_progress(split, done, total)


def _plain(numbers: SplitStatistics) -> dict[str, Any]:
    sizes = [{"height": height, "width": width, "images": n} for (height, width), n in numbers.image_sizes.items()]
    return {**asdict(numbers), "class_counts": list(numbers.class_counts), "image_sizes": sizes,
            "boxes_per_image": list(numbers.boxes_per_image), "box_sides": list(numbers.box_sides)}  # fmt: skip
