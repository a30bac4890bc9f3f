# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""A split of a dataset: its records, read and checked. Imports no torch."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from jaxtyping import Int64

from boxwright.datasets import codes
from boxwright.datasets.cache import ItemKeys, Key, LabelCache, Outcome
from boxwright.datasets.codes import Code, Severity
from boxwright.datasets.formats import format_named
from boxwright.datasets.formats.base import Format, Item, Labels, Listing
from boxwright.datasets.images import inspect_image
from boxwright.datasets.policy import DataConfig, ImagePolicy
from boxwright.datasets.report import error_text
from boxwright.datasets.sample import DatasetHeader, Instances, Problem, Record, Records, Report, Split
from boxwright.errors import DataError
from boxwright.vocabulary import TASKS

__all__ = ["DataConfig", "ImagePolicy", "all_labels", "read_split", "scan_split"]

Progress = Callable[[int, int], None]  # done, total
_CHUNK = 64  # images a thread takes at once
_SAID_ONCE = (
    codes.IMAGE_16BIT,
    codes.IMAGE_SEVERAL_FRAMES,
    codes.POLYGON_CROSSES_ITSELF,
    codes.OUTLINE_MISSING,
    codes.ANGLE_MISSING,
)  # fmt: skip; one line for the split, with a count
_TOO_MANY_MISSING = 0.5  # part of label files


def read_split(header: DatasetHeader, split: Split, config: DataConfig, on_progress: Progress | None = None) -> Records:
    """One split with its labels, fixed in memory as the policy says, and a report of everything found.

    Raises:
        DataError: something must be decided by a person before training; the message lists it.
    """
    records = scan_split(header, split, config, on_progress)
    if any(problem.severity == "error" for problem in records.report.problems):
        raise DataError(error_text(header, split, records.report))
    return records


def scan_split(header: DatasetHeader, split: Split, config: DataConfig, on_progress: Progress | None = None) -> Records:
    """Like `read_split`, but errors are only reported, in `Records.report`.

    Raises:
        DataError: the dataset has no such split, or a list of images cannot be read.
    """
    if split not in header.splits:
        raise DataError(f"{header.source}: there is no {split} split; it has {', '.join(header.splits)}")
    _require_labels(header, config)
    form = format_named(header.format)
    listing = form.items(header, split, config)
    outcomes = _outcomes(form, listing, header, split, config, on_progress)
    return _assemble(header, split, config, listing, outcomes)


def _require_labels(header: DatasetHeader, config: DataConfig) -> None:
    """Raises where the labels cannot hold what the task learns."""
    facts = TASKS[config.task]
    if facts.keypoints and header.keypoints is None:
        raise DataError(
            f"{header.source}: its labels have no keypoints to learn poses from; expected kpt_shape in a YOLO "
            "data.yaml or keypoints in the categories of a COCO file"
        )
    if facts.whole_image and (header.task is None or not TASKS[header.task].whole_image):
        raise DataError(
            f"{header.source}: its labels do not say the class of whole images; to classify, name a folder with "
            "train/<class name>/ and val/<class name>/"
        )


# -- reading -------------------------------------------------------------------------------------------------------


def _outcomes(
    form: Format,
    listing: Listing,
    header: DatasetHeader,
    split: Split,
    config: DataConfig,
    on_progress: Progress | None,
) -> list[Outcome]:
    cache = LabelCache(header, split, config, form.version)
    kept = cache.load()
    total = len(listing.items)
    chunks = [listing.items[start : start + _CHUNK] for start in range(0, total, _CHUNK)]

    keys = ItemKeys(config.fingerprint)

    def work(items: Sequence[Item]) -> list[tuple[Key, Outcome, bool]]:
        results = []
        for item in items:
            key = keys(item)
            known = kept.get(key)
            results.append((key, known or _read_item(form, item, header, config), known is not None))
        return results

    results: list[tuple[Key, Outcome, bool]] = []
    with ThreadPoolExecutor(min(8, (os.cpu_count() or 1) + 1)) as pool:
        for part in pool.map(work, chunks):
            results += part
            if on_progress is not None:
                on_progress(len(results), total)
    if len(kept) != len(results) or not all(known for _, _, known in results):
        cache.save({key: outcome for key, outcome, _ in results})
    return [outcome for _, outcome, _ in results]


def _read_item(form: Format, item: Item, header: DatasetHeader, config: DataConfig) -> Outcome:
    image, problems = inspect_image(item.image, item.image_name, config.image)
    if image is None:
        return Outcome(None, Labels(Instances.empty(), "missing"), tuple(problems))
    labels = form.read(item, image, header, config)
    return Outcome(image.size, labels, tuple(problems))


# -- the report ----------------------------------------------------------------------------------------------------


def _assemble(
    header: DatasetHeader, split: Split, config: DataConfig, listing: Listing, outcomes: list[Outcome]
) -> Records:
    used = [
        (item, outcome)
        for item, outcome in zip(listing.items, outcomes, strict=True)
        if outcome.size is not None and outcome.labels.state != "unreadable"
    ]
    records = tuple(
        Record(item.image, outcome.size, outcome.labels.instances, outcome.labels.image_label)
        for item, outcome in used
        if outcome.size is not None
    )
    problems = [*listing.problems]
    for outcome in outcomes:
        problems += outcome.problems
        problems += outcome.labels.problems
    problems = _say_once(problems)
    missing = [item for item, outcome in used if outcome.labels.state == "missing"]
    counts = _class_counts(header, records)
    problems += _split_problems(header, split, config, len(outcomes), records, missing)
    if config.strict:
        problems = [replace(p, severity="error") if p.severity == "warning" else p for p in problems]
    labels = [outcome.labels for _, outcome in used]
    report = Report(
        images=len(records),
        labels_found=sum(part.state == "found" for part in labels),
        missing=len(missing),
        empty=sum(part.state == "empty" for part in labels),
        corrupt=len(outcomes) - len(records) + listing.dropped,
        rows=sum(part.rows for part in labels),
        rows_dropped=sum(part.dropped for part in labels),
        rows_fixed=sum(part.fixed for part in labels),
        duplicates=sum(part.duplicates for part in labels),
        per_class_counts=counts,
        left_out=dict(sum((Counter(part.left_out) for part in labels), Counter())),
        problems=tuple(problems),
    )
    return Records(header, split, records, report)


def _class_counts(header: DatasetHeader, records: Iterable[Record]) -> dict[str, int]:
    labels = all_labels(records)
    numbers = np.bincount(labels, minlength=len(header.names)).tolist()
    counts: Counter[str] = Counter()
    for name, number in zip(header.names, numbers, strict=True):
        counts[name] += number
    return dict(counts)


def all_labels(records: Iterable[Record]) -> Int64[np.ndarray, " n"]:
    """The class of every object, or of every image where images have one."""
    parts = [
        record.instances.labels if record.image_label is None else np.array([record.image_label], np.int64)
        for record in records
    ]
    return np.concatenate([np.zeros(0, np.int64), *parts])


def _say_once(problems: list[Problem]) -> list[Problem]:
    """Problems with those that repeat for every file of a kind joined to one line each."""
    result = [problem for problem in problems if problem.code not in _SAID_ONCE]
    for code in _SAID_ONCE:
        for severity in ("warning", "note"):
            same = [problem for problem in problems if problem.code == code and problem.severity == severity]
            if len(same) > 1:
                names = ", ".join(problem.file for problem in same[1:5]) + (", ..." if len(same) > 5 else "")
                message = f"{same[0].message} (so are {len(same) - 1} more: {names})"
                same = [replace(same[0], message=message)]
            result += same
    return result


def _split_problems(
    header: DatasetHeader,
    split: Split,
    config: DataConfig,
    listed: int,
    records: tuple[Record, ...],
    missing: list[Item],
) -> list[Problem]:
    """What is wrong with the split as a whole."""
    places = ", ".join(str(place) for place in header.splits[split])
    problems: list[Problem] = []

    def say(code: Code, message: str, severity: Severity) -> None:
        problems.append(Problem(places, None, code, message, "none", severity))

    if not records:
        if listed:
            say(codes.NO_USABLE_IMAGE, f"none of the {listed} images of the {split} split can be used", "error")
        else:
            say(codes.NO_IMAGES, f"there are no images for the {split} split", "error")
        return problems
    if missing:
        few = ", ".join(item.label_name for item in missing[:5]) + (", ..." if len(missing) > 5 else "")
        too_many = len(missing) > _TOO_MANY_MISSING * len(records) and not config.allow_missing
        hint = "; is the labels folder beside the images folder? data.allow_missing=true accepts it" if too_many else ""
        message = f"{len(missing)} of {len(records)} images have no label file and count as background: {few}{hint}"
        say(codes.LABELS_MISSING, message, "error" if too_many else "note")
    if not len(all_labels(records)) and not config.allow_empty:
        say(codes.NO_OBJECTS, f"the {split} split has no object at all; data.allow_empty=true accepts that", "error")
    return problems
