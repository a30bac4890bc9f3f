# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""From any dataset to a new folder in another format: reading, choosing the task, writing whole or not at all."""

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from boxwright.datasets.dataset import all_labels, read_split
from boxwright.datasets.formats import format_named, open_dataset
from boxwright.datasets.formats.base import Format
from boxwright.datasets.formats.job import ImageMode, Job, Part
from boxwright.datasets.policy import DataConfig
from boxwright.datasets.sample import DatasetHeader, Records, Split
from boxwright.errors import DataError
from boxwright.vocabulary import TASKS, TaskName, task_with

Progress = Callable[[str, int, int], None]  # stage, done, total
# Formats that can be written, the usual ones first.
WRITERS: Mapping[str, Format] = {name: format_named(name) for name in ("yolo", "coco", "voc", "dota", "folder")}
_DEFAULT = DataConfig()


@dataclass(frozen=True, slots=True)
class ConversionReport:
    """What a conversion wrote and what it could not."""

    source: Path
    destination: Path  # what to name as the new dataset
    source_format: str
    to: str
    task: TaskName
    images: Mapping[str, int]  # by split
    objects: int
    lost: Mapping[str, int]  # what the new format cannot hold, counted
    not_read: Mapping[str, int]  # rows and images that reading dropped, by problem code

    @property
    def lossless(self) -> bool:
        """Everything that was read is in the new dataset."""
        return not self.lost

    def lines(self) -> tuple[str, ...]:
        """The report in words."""
        counts = ", ".join(f"{split} {count}" for split, count in self.images.items())
        kind = "labelled images" if TASKS[self.task].whole_image else "objects"
        lines = [f"{self.source_format} to {self.to} ({self.task}): images {counts}; {self.objects} {kind}"]
        lines += [f"lost in {self.to}: {what}: {count}" for what, count in self.lost.items()]
        if not self.lost:
            lines.append("lost: nothing that was read")
        lines += [f"not read: {code}: {count} (boxwright check names each)" for code, count in self.not_read.items()]
        return tuple(lines)


def convert_dataset(
    source: str | Path,
    destination: str | Path,
    *,
    to: str,
    task: TaskName | None = None,
    config: DataConfig = _DEFAULT,
    images: ImageMode = "copy",
    on_progress: Progress | None = None,
) -> ConversionReport:
    """Writes a dataset in another format into a new folder, and says what that format could not hold.

    `task` is what the labels are read for; None takes what the dataset says, else whether it has outlines. The folder
    appears whole or not at all.

    Raises:
        DataError: the source has errors that must be decided first, the folder is not empty or lies in the source, or
            the format cannot hold this task at all.
    """
    form = written_format("convert", to)
    read = read_source(source, destination, task, config, on_progress)
    advance = step_by_step(on_progress, read.images)
    lost, result = fill_folder(read, Path(destination).expanduser(), form, images, read.parts, advance)
    return ConversionReport(
        Path(source), result, read.header.format, to, read.task, read.per_split, read.objects,
        {**read.left_out, **lost}, read.not_read,
    )  # fmt: skip


def written_format(command: str, name: str) -> Format:
    """The format to write.

    Raises:
        DataError: none of this name can be written.
    """
    if name not in WRITERS:
        raise DataError(f"{command}: expected one of {', '.join(WRITERS)}, got '{name}'")
    return WRITERS[name]


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
        task=task or header.task or task_with(),
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
    form: Format,
    images: ImageMode,
    parts: Sequence[Part],
    advance: Callable[[], None],
    draw: Callable[[Path, Path], bool] | None = None,
) -> tuple[dict[str, int], Path]:
    """Writes a new dataset whole or not at all; returns what was lost, and what to name as the dataset.

    `draw` is asked first to write the image of a record to its new place; it says whether it did.

    Raises:
        DataError: the format cannot hold the task.
    """
    write = _writer(form, source.task)
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        unfinished.chmod(0o755)
        job = Job(unfinished, source.header, source.task, form.holds[source.task], parts, images, advance, draw)
        result = write(job)
        unfinished.replace(folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return dict(job.lost), folder / result


def _writer(form: Format, task: TaskName) -> Callable[[Job], str]:
    """Raises where the format cannot hold the task."""
    if task in form.holds and form.write is not None:
        return form.write
    sorted_images = all(TASKS[name].whole_image for name in form.holds)
    hint = "; only images that have a class of their own can be sorted into folders" if sorted_images else ""
    raise DataError(f"convert: {form.name} holds {', '.join(form.holds)}; expected one of these, got '{task}'{hint}")


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
    return task_with(outlines=outlined)
