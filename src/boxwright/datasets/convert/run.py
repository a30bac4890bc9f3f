# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""From any dataset to a new folder: reading, choosing the task, writing whole or not at all."""

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from boxwright.datasets.convert.job import ConversionReport, ImageMode, Job, Part
from boxwright.datasets.dataset import all_labels, read_split
from boxwright.datasets.formats import open_dataset
from boxwright.datasets.policy import DataConfig
from boxwright.datasets.sample import DatasetHeader, Records, Split
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
    """See `boxwright.datasets.convert.convert_dataset`."""
    if to not in writers:
        raise DataError(f"convert: expected one of {', '.join(writers)}, got '{to}'")
    read = read_source(source, destination, task, config, on_progress)
    advance = step_by_step(on_progress, read.images)
    folder = Path(destination).expanduser()
    lost, result = fill_folder(read, folder, to, writers[to], images, read.parts, advance)
    return ConversionReport(
        Path(source), result, read.header.format, to, read.task, read.per_split, read.objects,
        {**read.left_out, **lost}, read.not_read,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Source:
    """A dataset that was read to be written anew."""

    header: DatasetHeader
    task: TaskName
    splits: Mapping[tuple[Split, ...], Records]  # those made of the same files once

    @property
    def parts(self) -> list[Part]:
        """What a writer gets."""
        return [Part(names, records.records) for names, records in self.splits.items()]

    @property
    def images(self) -> int:
        """Number of images."""
        return sum(len(records.records) for records in self.splits.values())

    @property
    def objects(self) -> int:
        """Number of objects, or of images that have a class."""
        return sum(len(all_labels(records.records)) for records in self.splits.values())

    @property
    def per_split(self) -> dict[str, int]:
        """Images of each split."""
        return {split: len(records.records) for names, records in self.splits.items() for split in names}

    @property
    def left_out(self) -> dict[str, int]:
        """What the labels tell and nothing was read for."""
        counts: Counter[str] = Counter()
        for records in self.splits.values():
            counts.update(records.report.left_out)
        return dict(counts)

    @property
    def not_read(self) -> dict[str, int]:
        """Rows and images that reading dropped, by problem code."""
        problems = [problem for records in self.splits.values() for problem in records.report.problems]
        return dict(Counter(problem.code for problem in problems if "dropped" in problem.action))


def read_source(
    source: str | Path,
    destination: str | Path,
    task: TaskName | None,
    config: DataConfig,
    on_progress: Progress | None,
) -> Source:
    """Everything that a dataset's labels tell.

    Raises:
        DataError: the source has errors that must be decided first, or the destination is no place to write to.
    """
    header = open_dataset(source, config.names)
    _refuse_place(Path(destination).expanduser(), header)
    reading = replace(
        config,
        task=task or header.task or "detect",
        keep="all",
        allow_empty=True,
        allow_missing=True,
        source=str(source),
    )
    splits = _read(header, reading, on_progress)
    return Source(header, task or header.task or _guess(splits), splits)


def fill_folder(
    source: Source,
    folder: Path,
    to: str,
    writer: Callable[[Job], str],
    images: ImageMode,
    parts: Sequence[Part],
    advance: Callable[[], None],
    draw: Callable[[Path, Path], bool] | None = None,
) -> tuple[dict[str, int], Path]:
    """Writes a new dataset whole or not at all; returns what was lost, and what to name as the dataset.

    `draw` is asked first to write the image of a record to its new place; it says whether it did.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        unfinished.chmod(0o755)
        job = Job(unfinished, source.header, source.task, to, parts, images, advance, draw)
        result = writer(job)
        unfinished.replace(folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return dict(job.lost), folder / result


def step_by_step(on_progress: Progress | None, total: int, stage: str = "writing") -> Callable[[], None]:
    """Counts the images of a stage one by one."""
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        if on_progress is not None:
            on_progress(stage, done, total)

    return advance


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
