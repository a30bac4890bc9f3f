# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""What a writer gets, how it places images, and how what is lost is counted."""

import os
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from boxwright.datasets.formats.shapes import polygon_area
from boxwright.datasets.sample import DatasetHeader, Instances, Polygons, Record, Split
from boxwright.errors import DataError
from boxwright.vocabulary import TASKS, TaskName

ImageMode = Literal["copy", "link", "none"]
# What labels can tell of an object beside its class and box.
Detail = Literal["polygons", "corners", "keypoints", "areas", "ignore", "attributes"]
Holds = Mapping[TaskName, frozenset[Detail]]  # the tasks whose labels a format can hold, and the details it keeps
OBJECT_TASKS: tuple[TaskName, ...] = tuple(name for name, facts in TASKS.items() if not facts.whole_image)
_SAME_AREA = 0.01  # relative; files state the area of the drawn mask, which differs from the outline's by its rounding


@dataclass(frozen=True, slots=True)
class Part:
    """Images of one split, or of several that are the same."""

    splits: tuple[Split, ...]
    records: tuple[Record, ...]

    @property
    def folder(self) -> str:
        """What its folder is called."""
        return self.splits[0]


@dataclass(slots=True)
class Job:
    """One conversion while it is written."""

    folder: Path  # new, empty
    header: DatasetHeader
    task: TaskName
    keeps: frozenset[Detail]  # what the format holds of an object of this task
    parts: Sequence[Part]
    images: ImageMode
    advance: Callable[[], None]  # called once for each image
    draw: Callable[[Path, Path], bool] | None = None  # writes an image that is no file yet; False: it is one
    lost: Counter[str] = field(default_factory=Counter)
    _names: dict[str, set[str]] = field(default_factory=dict)

    def place(self, record: Record, folder: str, scope: str = "") -> str:
        """Copies or links an image into a folder of the new dataset and returns its name there.

        No two images of a scope get the same name up to their suffix, as labels are found by it.
        """
        taken = self._names.setdefault(scope, set())
        stem, suffix = record.image.stem, record.image.suffix
        name, number = stem, 1
        while name.casefold() in taken:
            number += 1
            name = f"{stem}_{number}"
        if number > 1:
            self.lost["file names (changed: another image has the same)"] += 1
        taken.add(name.casefold())
        target = self.folder / folder / (name + suffix)
        target.parent.mkdir(parents=True, exist_ok=True)
        drawn = self.draw is not None and self.draw(record.image, target)
        if self.images != "none" and not drawn:
            _put(record.image, target, self.images)
        self.advance()
        return name + suffix

    def write(self, name: str, text: str) -> None:
        """Writes a text file of the new dataset."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")

    def count_lost(self, objects: Instances) -> None:
        """Counts what the format does not hold of one image's objects."""
        keeps = self.keeps
        oriented = objects.corners is not None
        if objects.polygons is not None and "polygons" not in keeps:
            self.lose("outlines", sum(bool(outline) for outline in objects.polygons))
        if oriented and "corners" not in keeps:
            self.lose("angles of oriented boxes", len(objects))
        if objects.keypoints is not None and "keypoints" not in keeps:
            self.lose("objects' keypoints", int((objects.keypoints[..., 2] > 0).any(axis=1).sum()))
        if objects.areas is not None and "areas" not in keeps:
            outlines = objects.polygons if "polygons" in keeps else None
            boxes = objects.boxes.astype(np.float64)
            plain = [_area(box, outlines[i] if outlines else None) for i, box in enumerate(boxes)]
            # One that box or outline tells as well is not lost.
            self.lose("stated areas", int((~np.isclose(objects.areas, plain, rtol=_SAME_AREA)).sum()))
        if objects.ignore is not None and "ignore" not in keeps:
            self.lose("ignore regions", len(objects.ignore))
        for name, values in (objects.attributes or {}).items() if "attributes" not in keeps else ():
            known = (values >= 0).reshape(len(values), -1).any(axis=1)
            self.lose(f"values of attribute '{name}'", int(known.sum()))

    def lose(self, what: str, count: int = 1) -> None:
        """Notes that `count` of something are not in the new dataset."""
        if count:
            self.lost[what] += count


def _area(box: np.ndarray, outline: Polygons | None) -> float:
    x1, y1, x2, y2 = box.tolist()
    return sum(polygon_area(part) for part in outline) if outline else float((x2 - x1) * (y2 - y1))


def _put(source: Path, target: Path, mode: ImageMode) -> None:
    if mode == "copy":
        shutil.copyfile(source, target)
        return
    try:
        os.link(source.resolve(), target)  # a hard link: the new dataset does not point outside itself
    except OSError as error:
        raise DataError(f"{source}: cannot be linked ({error.strerror}); use copies (--images copy)") from None


def lose_ids(job: Job) -> None:
    """Counts class ids and the exclusive flag, for formats that name classes in words only."""
    header = job.header
    if header.class_ids != tuple(range(len(header.names))):
        job.lose("class ids", len(header.class_ids))
    if header.exclusive is not None:
        job.lose("statement that classes are exclusive or not")
    job.lose("classes with the name of another", len(header.names) - len(set(header.names)))


def number(value: float, digits: int) -> str:
    """A number as short as its digits allow.

    >>> number(0.5, 9), number(3.0, 4), number(-0.00001, 4)
    ('0.5', '3', '0')
    """
    text = f"{value:.{digits}f}".rstrip("0").rstrip(".")
    return "0" if text in ("", "-0") else text


def pixels(values: np.ndarray) -> list[int | float]:
    """Pixel coordinates for JSON: 1/10000 px, whole numbers as such."""
    return [
        int(value) if value == int(value) else value
        for value in np.round(values.astype(np.float64), 4).ravel().tolist()
    ]
