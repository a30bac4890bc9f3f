# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""DOTA folders, read and written: `images/` and `labelTxt/`, for each split or once.

Source: spec/datasets 5 and case 70; Xia et al. 2018, arXiv:1711.10398.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from boxwright.datasets import codes
from boxwright.datasets.formats.base import Item, Labels, Listing, read_label_file, shown
from boxwright.datasets.formats.class_list import read_class_list
from boxwright.datasets.formats.collect import DIFFICULT, Collector, EntryError
from boxwright.datasets.formats.job import OBJECT_TASKS, Holds, Job, lose_ids, number
from boxwright.datasets.formats.listing import LabelFolders, list_folder, name_clashes, reach, spellings
from boxwright.datasets.formats.objects import ReadObject, Wanted, clip_box
from boxwright.datasets.formats.oriented import oriented_corners
from boxwright.datasets.formats.shapes import box_corners, extent
from boxwright.datasets.formats.single_file import complete
from boxwright.datasets.image_header import ImageHeader
from boxwright.datasets.policy import DataConfig
from boxwright.datasets.sample import DatasetHeader, Problem, Record, Split
from boxwright.errors import DataError
from boxwright.vocabulary import TASKS, task_with

DOTA_NAMES = (
    "plane", "ship", "storage-tank", "baseball-diamond", "tennis-court", "basketball-court", "ground-track-field",
    "harbor", "bridge", "large-vehicle", "small-vehicle", "helicopter", "roundabout", "soccer-ball-field",
    "swimming-pool", "container-crane", "airport", "helipad",
)  # fmt: skip
_DIGITS = 4  # of a pixel, written
_VERSIONS = (15, 16, 18)  # classes of v1.0, v1.5 and v2.0
_SPLITS: tuple[tuple[Split, tuple[str, ...]], ...] = (
    ("train", ("train", "trainval")),
    ("val", ("val", "valid", "validation")),
    ("test", ("test",)),
)


@dataclass(frozen=True, slots=True)
class Dota:
    """DOTA text labels."""

    name: str = "dota"
    version: int = 3

    @property
    def holds(self) -> Holds:
        """The corners of every object."""
        return dict.fromkeys(OBJECT_TASKS, frozenset(("corners",)))

    def detect(self, source: Path) -> bool:
        """A folder with `images` and `labelTxt`, or such folders called train and val."""
        return source.is_dir() and bool(_splits(source) or _label_folder(source))

    def header(self, source: Path, names: Sequence[str] | None) -> DatasetHeader:
        """Splits by folder; classes from `names`, a classes.txt, DOTA's own list, or the labels.

        Raises:
            DataError: no label names a class.
        """
        single = source if _label_folder(source) else None
        splits, problems = complete(_splits(source), single, source)
        chosen = tuple(names) if names else tuple(read_class_list(source) or ())
        if not chosen:
            chosen = _default_names(_used_names(dict.fromkeys(place for places in splits.values() for place in places)))
        if not chosen:
            raise DataError(f"{source}: no label names a class; set data.names, or add a classes.txt with one a line")
        return DatasetHeader(
            "dota",
            source,
            source,
            chosen,
            tuple(range(len(chosen))),
            splits,
            tuple(problems),
            task=task_with(oriented=True),
        )

    def items(self, header: DatasetHeader, split: Split, config: DataConfig) -> Listing:
        """Images of the split's folder, each with its label file."""
        items: list[Item] = []
        problems: list[Problem] = []
        dropped = 0
        for place in header.splits[split]:
            labels, folders = _label_folder(place), LabelFolders(".txt")
            assert labels is not None
            images_folder = place / "images"
            if not reach(images_folder).is_dir():
                raise DataError(f"{images_folder}: there is no such folder; it holds the images of {labels}")
            found = list_folder(images_folder, header.root, config.follow_links)
            problems += found.problems + name_clashes(found.images, header.root)
            dropped += found.dropped
            for image in found.images:
                label = folders.find(labels, image.stem)
                name = shown(labels / f"{image.stem}.txt", header.root)
                items.append(Item(reach(image.parent) / image.name, label, shown(image, header.root), name))
            stems = {image.stem for image in found.images}
            for name in sorted(folders.names(labels)):
                if stems.isdisjoint(spellings(name[:-4])):
                    message = f"there is no image of this name in {shown(images_folder, header.root)}"
                    file = shown(labels / name, header.root)
                    problems.append(Problem(file, None, codes.ORPHAN_LABEL, message, "ignored"))
        return Listing(tuple(items), tuple(problems), dropped)

    def read(self, item: Item, image: ImageHeader, header: DatasetHeader, config: DataConfig) -> Labels:
        """Rows of the label file as oriented boxes; a missing or empty file makes the image background."""
        data = read_label_file(item)
        if isinstance(data, Labels):
            return data
        wanted = Wanted.of(config, None, header.attributes)
        found = Collector(item.label_name, image.size, config, wanted)
        rows = 0
        for line, text in enumerate(data.decode("utf-8-sig", errors="replace").splitlines(), 1):
            fields = text.split()
            if not fields or _is_header(fields):
                continue
            rows += 1
            try:
                _read_row(fields, line, header, found)
            except EntryError as error:
                found.drop("", error, line)
        return found.labels(rows)

    def write(self, job: Job) -> str:
        """Writes `<split>/images`, `<split>/labelTxt`, and `classes.txt` for the order of the classes.

        The folder itself is the dataset. Boxes become corners without an angle.
        """
        lose_ids(job)
        # One part for every split is what a folder without splits means.
        single = len(job.parts) == 1
        for part in job.parts:
            for split in part.splits[:1] if single else part.splits:
                folder = "" if single else f"{split}/"
                for record in part.records:
                    name = job.place(record, f"{folder}images", split)
                    if split == part.folder:
                        job.count_lost(record.instances)
                    job.write(f"{folder}labelTxt/{Path(name).stem}.txt", _written_rows(job, record))
                for name in ("images", "labelTxt"):
                    (job.folder / folder / name).mkdir(parents=True, exist_ok=True)
        job.write("classes.txt", "".join(f"{name}\n" for name in job.header.names))
        return "."


# -- rows ----------------------------------------------------------------------------------------------------------


def _is_header(fields: list[str]) -> bool:
    """Fewer than nine fields that do not begin with a number: `imagesource:GoogleEarth`, `gsd:0.146`."""
    if len(fields) >= 9:
        return False
    try:
        float(fields[0])
    except ValueError:
        return True
    return False


def _read_row(fields: list[str], line: int, header: DatasetHeader, found: Collector) -> None:
    if len(fields) < 9:
        raise EntryError(
            codes.BAD_COLUMN_COUNT, f"expected 8 numbers, a class and a difficult flag, got {len(fields)} fields"
        )
    values = [_number(text, position) for position, text in enumerate(fields[:8], 1)]
    name, difficult = _class_and_flag(fields)
    if difficult != "0" and found.config.skip_difficult:
        raise EntryError(codes.DIFFICULT, "marked difficult; data.skip_difficult=false keeps it", "note")
    if name not in header.names:
        known = ", ".join(header.names[:20]) + (", ..." if len(header.names) > 20 else "")
        skip = found.config.fix in ("skip", "all")
        message = f"class {name!r} is not one of {known}; set data.names, or data.fix=skip to drop such objects"
        raise EntryError(codes.CLASS_UNKNOWN, message, "warning" if skip else "error")
    corners, remarks = oriented_corners(np.array(values).reshape(4, 2), found.size)
    for remark in remarks:
        found.remark("", remark, line)
    label = header.names.index(name)
    box = found.clip(clip_box(extent(corners), found.size)[0], "", line=line)
    outline = (corners,) if TASKS[found.config.task].outlines else ()
    found.add(ReadObject(label, box, polygons=outline, corners=corners), (label, *values), "", line)
    found.leave_out(DIFFICULT, int(difficult != "0"))


def _class_and_flag(fields: list[str]) -> tuple[str, str]:
    """Name and difficult flag; names may hold spaces, the flag may be missing."""
    rest = fields[8:]
    if len(rest) > 1 and rest[-1] in ("0", "1", "2"):
        return " ".join(rest[:-1]), rest[-1]
    return " ".join(rest), "0"


def _number(text: str, position: int) -> float:
    try:
        value = float(text.replace("_", "?"))
    except ValueError:
        raise EntryError(codes.NOT_A_NUMBER, f"field {position}: expected a number, got {text[:20]!r}") from None
    if not math.isfinite(value):
        raise EntryError(codes.NOT_FINITE, f"field {position}: expected a finite number, got {text}")
    return value


def _written_rows(job: Job, record: Record) -> str:
    objects = record.instances
    rows = []
    for index, label in enumerate(objects.labels.tolist()):
        corners = box_corners(objects.boxes[index].tolist()) if objects.corners is None else objects.corners[index]
        values = " ".join(number(value, _DIGITS) for value in np.asarray(corners, np.float64).ravel().tolist())
        rows.append(f"{values} {job.header.names[label]} 0\n")
    return "".join(rows)


# -- folders and class names ---------------------------------------------------------------------------------------


def _label_folder(folder: Path) -> Path | None:
    """`labelTxt`, or the newest of `labelTxt-v1.0`, `labelTxt-v1.5`, ..."""
    if (folder / "labelTxt").is_dir():
        return folder / "labelTxt"
    versions = sorted(place for place in folder.glob("labelTxt-v*") if place.is_dir())
    return versions[-1] if versions else None


def _splits(source: Path) -> dict[Split, tuple[Path, ...]]:
    splits: dict[Split, tuple[Path, ...]] = {}
    for split, names in _SPLITS:
        place = next((source / name for name in names if _label_folder(source / name)), None)
        if place is not None:
            splits[split] = (place,)
    return splits


def _used_names(places: Sequence[Path] | dict[Path, None]) -> set[str]:
    names = set()
    for place in places:
        folder = _label_folder(place)
        for file in sorted(folder.glob("*.txt")) if folder else ():
            for line in file.read_text("utf-8-sig", errors="replace").splitlines():
                fields = line.split()
                if len(fields) >= 9:
                    names.add(_class_and_flag(fields)[0])
    return names


def _default_names(used: set[str]) -> tuple[str, ...]:
    """DOTA's classes where the labels use any of them, those of the first version that has all; else what is used."""
    known = [DOTA_NAMES.index(name) for name in used if name in DOTA_NAMES]
    if not known:
        return tuple(sorted(used))
    return DOTA_NAMES[: next(count for count in _VERSIONS if max(known) < count)]
