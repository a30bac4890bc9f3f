# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""From any dataset to a new folder: reading, choosing the task, writing whole or not at all."""

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from boxwright.data.convert.job import ConversionReport, ImageMode, Job, Part
from boxwright.data.dataset import all_labels, read_split
from boxwright.data.formats import open_dataset
from boxwright.data.policy import DataConfig
from boxwright.data.sample import DatasetHeader, Records, Split
from boxwright.errors import DataError
from boxwright.vocabulary import TaskName

Progress = Callable[[str, int, int], None]  # stage, done, total


def convert_dataset(
    source: str | Path,
    destination: str | Path,
    to: str,
    writers: Mapping[str, Callable[[Job], str]],
    task: TaskName | None,
    config: DataConfig,
    images: ImageMode,
    on_progress: Progress | None,
) -> ConversionReport:
    """See `boxwright.data.convert.convert_dataset`."""
    if to not in writers:
        raise DataError(f"convert: expected one of {', '.join(writers)}, got '{to}'")
    header = open_dataset(source, config.names)
    folder = Path(destination).expanduser()
    _refuse_place(folder, header)
    reading = replace(
        config,
        task=task or header.task or "detect",
        keep="all",
        allow_empty=True,
        allow_missing=True,
        source=str(source),
    )
    splits = _read(header, reading, on_progress)
    chosen = task or header.task or _guess(splits)
    parts = [Part(names, records.records) for names, records in splits.items()]
    total = sum(len(part.records) for part in parts)
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        if on_progress is not None:
            on_progress("writing", done, total)

    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        unfinished.chmod(0o755)
        job = Job(unfinished, header, chosen, to, parts, images, advance)
        result = writers[to](job)
        unfinished.replace(folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return ConversionReport(
        Path(source), folder / result, header.format, to, chosen,
        {split: len(records.records) for names, records in splits.items() for split in names},
        sum(len(all_labels(part.records)) for part in parts), dict(job.lost), _not_read(splits),
    )  # fmt: skip


def _refuse_place(folder: Path, header: DatasetHeader) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder}: expected a new or empty folder; nothing is written over")
    new = folder.resolve()
    for place in (header.root.resolve(), *(path.resolve() for paths in header.splits.values() for path in paths)):
        if new.is_relative_to(place) or place.is_relative_to(new):
            raise DataError(f"{folder}: lies inside the dataset it is made from ({place}); choose another place")


def _read(header: DatasetHeader, config: DataConfig, on_progress: Progress | None) -> dict[tuple[Split, ...], Records]:
    """Every split, those made of the same files once."""
    groups: dict[tuple[Path, ...], list[Split]] = {}
    for split, places in header.splits.items():
        groups.setdefault(places, []).append(split)
    splits: dict[tuple[Split, ...], Records] = {}
    for names in groups.values():

        def listen(done: int, total: int, split: str = names[0]) -> None:
            if on_progress is not None:
                on_progress(f"reading {split}", done, total)

        splits[tuple(names)] = read_split(header, names[0], config, listen)
    return splits


def _guess(splits: Mapping[tuple[Split, ...], Records]) -> TaskName:
    """Segment where any label has an outline."""
    records = [record for part in splits.values() for record in part.records]
    outlined = any(any(record.instances.polygons or ()) for record in records)
    return "segment" if outlined else "detect"


def _not_read(splits: Mapping[tuple[Split, ...], Records]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for records in splits.values():
        counts.update(problem.code for problem in records.report.problems if "dropped" in problem.action)
    return dict(counts)
