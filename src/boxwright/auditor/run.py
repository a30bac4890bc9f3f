# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The audit itself: reads every split, looks at every image, runs every check. It never stops at a bad dataset."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from boxwright.auditor.checks import run_checks
from boxwright.auditor.images import look_at
from boxwright.auditor.labels import SplitLabels
from boxwright.auditor.learnable import Setting, learnable
from boxwright.auditor.pairs import close_pairs
from boxwright.auditor.readers import findings_of
from boxwright.auditor.result import Audit, worst_first
from boxwright.auditor.scene import Audited, RowKinds
from boxwright.datasets import codes
from boxwright.datasets.checks import find_overlap
from boxwright.datasets.codes import Code
from boxwright.datasets.dataset import scan_split
from boxwright.datasets.formats import format_named, open_dataset
from boxwright.datasets.policy import DataConfig
from boxwright.datasets.sample import DatasetHeader, Problem, Records, Split
from boxwright.errors import DataError
from boxwright.vocabulary import TASKS

Progress = Callable[[str, int, int], None]  # stage, done, total
ROW_FILES = 500  # label files whose rows are looked at, evenly spread
ROW_BYTES = 1 << 16  # of each
DEFAULT_DATA = DataConfig()


def audit_dataset(
    source: str | Path,
    setting: Setting | None,
    config: DataConfig = DEFAULT_DATA,
    *,
    splits: Sequence[Split] | None = None,
    pixels: bool = True,
    on_progress: Progress | None = None,
) -> Audit:
    """Everything that the checks find; a dataset that cannot be opened is a finding too.

    Args:
        source: a dataset of any format.
        setting: how a model would see it; None: who can be learned is not asked.
        config: how labels and images are read.
        splits: those to look at; None: all.
        pixels: decode every image once; without it duplicates and leaks of different files stay unseen.
        on_progress: told the stage, how much is done, and of how much.
    """
    audit, _ = audit_and_records(source, setting, config, splits=splits, pixels=pixels, on_progress=on_progress)
    return audit


def audit_and_records(
    source: str | Path,
    setting: Setting | None,
    config: DataConfig,
    *,
    splits: Sequence[Split] | None,
    pixels: bool,
    on_progress: Progress | None,
) -> tuple[Audit, Mapping[Split, Records]]:
    """`audit_dataset`, and what was read."""
    path = Path(source).expanduser()
    try:
        header = open_dataset(source, config.names)
    except DataError as error:
        code = codes.CANNOT_OPEN if path.exists() else codes.PATH_NOT_FOUND
        return Audit(path, None, {}, {}, tuple(findings_of([(None, _problem(path, code, error))]))), {}
    if header.task is not None and TASKS[config.task].boxes_only:
        config = replace(config, task=header.task)
    problems: list[tuple[Split | None, Problem]] = [(None, problem) for problem in header.problems]
    held = dict(_read(header, config, splits, problems, on_progress))
    problems += [(split, problem) for split, records in held.items() for problem in records.report.problems]
    findings = findings_of([*problems, *((None, problem) for problem in find_overlap(held))])
    labels = {split: SplitLabels.of(records) for split, records in held.items()}
    about_objects = header.task is None or not TASKS[header.task].whole_image
    found = {split: learnable(part, setting) for split, part in labels.items()} if about_objects and setting else {}
    audited = Audited(
        names=header.names,
        root=header.root,
        splits=labels,
        pairs={split: close_pairs(part) for split, part in labels.items()},
        learnable=found,
        pictures={
            split: look_at(split, part.images, config.image, _stage(on_progress, f"looking at {split} images"))
            for split, part in labels.items()
        }
        if pixels
        else {},
        reports={split: records.report for split, records in held.items()},
        row_kinds=dict(_row_kinds(header, config, held)),
    )
    findings += run_checks(audited)
    if splits is not None:
        findings = [finding for finding in findings if finding.code not in ("split_missing",)]
    return Audit(path, header, labels, audited.reports, worst_first(findings), found, pixels), held


def _read(
    header: DatasetHeader,
    config: DataConfig,
    splits: Sequence[Split] | None,
    problems: list[tuple[Split | None, Problem]],
    on_progress: Progress | None,
) -> Iterator[tuple[Split, Records]]:
    for split in header.splits if splits is None else splits:
        try:
            yield split, scan_split(header, split, config, _stage(on_progress, f"reading {split} labels"))
        except DataError as error:
            problems.append((split, _problem(header.source, codes.SPLIT_UNREADABLE, error)))


def _problem(path: Path, code: Code, error: DataError) -> Problem:
    return Problem(str(path), None, code, str(error).removeprefix(f"{path}: "), "none", "error")


def _stage(on_progress: Progress | None, name: str) -> Callable[[int, int], None] | None:
    return None if on_progress is None else lambda done, total: on_progress(name, done, total)


def _row_kinds(
    header: DatasetHeader, config: DataConfig, held: Mapping[Split, Records]
) -> Iterator[tuple[Split, RowKinds]]:
    """Of YOLO text labels that are read for boxes because nothing says what they are made for."""
    if header.format != "yolo" or header.task is not None or not TASKS[config.task].boxes_only:
        return
    for split in held:
        files = [item.label for item in format_named("yolo").items(header, split, config).items if item.label]
        chosen = [files[i] for i in np.unique(np.linspace(0, len(files) - 1, ROW_FILES).astype(int))] if files else []
        boxes = outlines = 0
        examples = []
        for file in chosen:
            fields = [len(line.split()) for line in _head(file).splitlines()]
            more = sum(count > 6 for count in fields)
            boxes += sum(count == 5 for count in fields)
            outlines += more
            if more:
                examples.append(file.name)
        yield split, RowKinds(len(chosen), boxes, outlines, tuple(examples[:10]))


def _head(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(ROW_BYTES)
    except OSError:
        return b""
