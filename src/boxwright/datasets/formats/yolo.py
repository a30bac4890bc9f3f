# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""YOLO layout, read and written: images with a text file each, described by a data.yaml or by folder names.

Source: spec/datasets 1 and 2.
"""

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from boxwright.datasets import codes
from boxwright.datasets.formats.base import Item, Labels, Listing, read_label_file, shown
from boxwright.datasets.formats.class_list import read_class_list
from boxwright.datasets.formats.data_yaml import read_data_yaml
from boxwright.datasets.formats.job import Detail, Holds, Job, number
from boxwright.datasets.formats.listing import (
    IMAGE_SUFFIXES,
    Found,
    LabelFolders,
    list_folder,
    list_text,
    name_clashes,
    reach,
    spellings,
)
from boxwright.datasets.formats.shapes import clip_polygon, flaw, join_parts
from boxwright.datasets.formats.yolo_rows import RowRules, read_rows
from boxwright.datasets.image_header import ImageHeader
from boxwright.datasets.policy import DataConfig
from boxwright.datasets.sample import DatasetHeader, Instances, Problem, Record, Split
from boxwright.errors import DataError
from boxwright.vocabulary import TASKS, AttributeSpec, TaskFacts


def _row_details(facts: TaskFacts) -> frozenset[Detail]:
    """What a row of a task tells beside class and box."""
    details: tuple[tuple[bool, Detail], ...] = (
        (facts.outlines, "polygons"), (facts.keypoints, "keypoints"), (facts.oriented, "corners"), (True, "attributes"),
    )  # fmt: skip
    return frozenset(detail for given, detail in details if given)


_YAML_NAMES = ("data.yaml", "data.yml", "dataset.yaml", "config.yaml")
_SPLIT_FOLDERS: tuple[tuple[Split, tuple[str, ...]], ...] = (
    ("train", ("train",)),
    ("val", ("val", "valid", "validation")),
    ("test", ("test",)),
)
_DIGITS = 9  # of a coordinate over the side of the image, written: 1e-5 px at 10 000 px
_HOLDS: Holds = {name: _row_details(facts) for name, facts in TASKS.items() if not facts.whole_image}
_MANY_CLASSES = 10_000  # a higher number is no class where nothing names the classes
_NOT_LABELS = frozenset(("classes.txt", "train.txt", "val.txt", "valid.txt", "test.txt", "readme.txt"))


@dataclass(frozen=True, slots=True)
class Yolo:
    """YOLO text labels."""

    name: str = "yolo"
    version: int = 2

    @property
    def holds(self) -> Holds:
        """What the rows of a task have room for, and attributes behind it."""
        return _HOLDS

    def detect(self, source: Path) -> bool:
        """A YAML file, or a folder with one or with `images/train` or `train/images`."""
        if source.is_file():
            return source.suffix.lower() in (".yaml", ".yml")
        return source.is_dir() and (_yaml_inside(source) is not None or bool(_split_folders(source)))

    def header(self, source: Path, names: Sequence[str] | None) -> DatasetHeader:
        """From the YAML file, or from folder names and a `classes.txt`.

        Raises:
            DataError: the description is incomplete or wrong.
        """
        yaml_file = source if source.is_file() else _yaml_inside(source)
        return _folder_header(source, names) if yaml_file is None else read_data_yaml(yaml_file)

    def items(self, header: DatasetHeader, split: Split, config: DataConfig) -> Listing:
        """Images of folders and lists, each with its label file.

        Raises:
            DataError: a list cannot be read.
        """
        found = Found()
        for place in header.splits[split]:
            part = _list_place(place, header.root, config)
            found.images += part.images
            found.problems += part.problems
            found.dropped += part.dropped
        images = list(dict.fromkeys(found.images))
        if len(header.splits[split]) > 1:
            images.sort(key=lambda path: path.as_posix())
        problems = [*found.problems, *name_clashes(images, header.root)]
        folders = LabelFolders(".txt")
        items = _pair(images, folders, header.root)
        return Listing(items, (*problems, *_orphans(images, folders, header.root)), found.dropped)

    def read(self, item: Item, image: ImageHeader, header: DatasetHeader, config: DataConfig) -> Labels:
        """Rows of the label file as objects; a missing or empty file makes the image background."""
        data = read_label_file(item)
        if isinstance(data, Labels):
            return data
        ids = {class_id: index for index, class_id in enumerate(header.class_ids)}
        rules = RowRules(ids, header.names, header.keypoints, config, header.attributes)
        return read_rows(data, item.label_name, image.size, rules)

    def write(self, job: Job) -> str:
        """Writes `images/<split>`, `labels/<split>` and `data.yaml`, which is the dataset."""
        for part in job.parts:
            for record in part.records:
                name = job.place(record, f"images/{part.folder}", part.folder)
                job.count_lost(record.instances)
                text = "".join(f"{row}\n" for row in _rows(job, record))
                job.write(f"labels/{part.folder}/{Path(name).stem}.txt", text)
            if job.images == "none" or not part.records:
                (job.folder / "images" / part.folder).mkdir(parents=True, exist_ok=True)
        job.write("data.yaml", yaml.safe_dump(_description(job), sort_keys=False, allow_unicode=True))
        return "data.yaml"


def label_path(image: Path) -> Path:
    """Where an image's labels are: its last `images` folder becomes `labels`, its suffix `.txt`.

    >>> label_path(Path("images/a/images/b.jpg")).as_posix()
    'images/a/labels/b.txt'
    """
    return _label_folder(image.parent) / (image.stem + ".txt")


def _label_folder(folder: Path) -> Path:
    parts = list(folder.parts)
    for index in range(len(parts) - 1, -1, -1):
        if parts[index] == "images":
            parts[index] = "labels"
            return Path(*parts)
    return folder


def _list_place(place: Path, root: Path, config: DataConfig) -> Found:
    if place.suffix.lower() == ".txt" and reach(place).is_file():
        return list_text(place, root)
    if place.suffix.lower() in IMAGE_SUFFIXES and reach(place).is_file():
        return Found([place])
    return list_folder(place, root, config.follow_links)


def _pair(images: list[Path], folders: LabelFolders, root: Path) -> tuple[Item, ...]:
    """Each image with its label file; what depends on the folder only is worked out once."""
    places: dict[Path, tuple[Path, Path, str]] = {}  # folder -> folder to open, folder of labels, its shown name
    items = []
    for image in images:
        folder = image.parent
        if folder not in places:
            labels = _label_folder(folder)
            places[folder] = reach(folder), labels, shown(labels / "x", root)[:-1]
        real, labels, label_prefix = places[folder]
        stem = image.stem
        found = image if real is folder else real / image.name
        items.append(Item(found, folders.find(labels, stem), shown(image, root), f"{label_prefix}{stem}.txt"))
    return tuple(items)


def _orphans(images: list[Path], folders: LabelFolders, root: Path) -> list[Problem]:
    """Label files whose image does not exist, in the folders that belong to the split."""
    problems = []
    for folder in dict.fromkeys(image.parent for image in images):
        labels = _label_folder(folder)
        names = [name for name in folders.names(labels) if name.lower() not in _NOT_LABELS]
        stems = _image_stems(reach(folder)) if names else set()
        for name in sorted(names):
            if stems.isdisjoint(spellings(name[:-4])):
                message = f"there is no image of this name in {shown(folder, root)}"
                problems.append(Problem(shown(labels / name, root), None, codes.ORPHAN_LABEL, message, "ignored"))
    return problems


def _image_stems(folder: Path) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {os.path.splitext(entry.name)[0] for entry in entries}  # noqa: PTH122 (a Path per entry is slow)
    except OSError:
        return set()


# -- folders without a YAML file -----------------------------------------------------------------------------------


def _yaml_inside(folder: Path) -> Path | None:
    for name in _YAML_NAMES:
        if (folder / name).is_file():
            return folder / name
    others = sorted(path for suffix in ("*.yaml", "*.yml") for path in folder.glob(suffix))
    return others[0] if len(others) == 1 else None


def _split_folders(folder: Path) -> dict[Split, tuple[Path, ...]]:
    splits: dict[Split, tuple[Path, ...]] = {}
    for split, names in _SPLIT_FOLDERS:
        for name in names:
            for place in (folder / "images" / name, folder / name / "images"):
                if split not in splits and reach(place).is_dir():
                    splits[split] = (place,)
    return splits


def _folder_header(source: Path, names: Sequence[str] | None) -> DatasetHeader:
    splits = _split_folders(source)
    for split in ("train", "val"):
        if split not in splits:
            raise DataError(
                f"{source}: there is no images/{split} (or {split}/images); a folder without a data.yaml needs "
                "images/train, images/val, labels/train and labels/val"
            )
    problems: list[Problem] = []
    chosen = list(names) if names else read_class_list(source)
    if chosen is None:
        count = 1 + max((_highest_class(_label_folder(place)) for (place,) in splits.values()), default=-1)
        if count == 0:
            raise DataError(f"{source}: no class names: add a classes.txt with one name a line, or a data.yaml")
        chosen = [f"class_{index}" for index in range(count)]
        message = f"no classes.txt; the labels use classes up to {count - 1}, named class_0 .. class_{count - 1}"
        problems.append(Problem(source.name, None, codes.NAMES_MISSING, message, "names made up", "note"))
    return DatasetHeader("yolo", source, source, tuple(chosen), tuple(range(len(chosen))), splits, tuple(problems))


def _highest_class(folder: Path) -> int:
    return max((highest_class(file.read_bytes()) for file in reach(folder).rglob("*.txt")), default=-1)


def highest_class(data: bytes) -> int:
    r"""The highest class index of a label file, as far as its rows name one; -1 where none does.

    >>> highest_class(b"0 .5 .5 .1 .1\n7 .5 .5 .1 .1\n")
    7
    """
    highest = -1
    for line in data.splitlines():
        first = line.split(maxsplit=1)[:1]
        try:
            value = float(first[0]) if first else math.nan
        except ValueError:
            continue
        if value.is_integer() and 0 <= value < _MANY_CLASSES:  # 3.0 is read as 3
            highest = max(highest, int(value))
    return highest


# -- writing -------------------------------------------------------------------------------------------------------


def _description(job: Job) -> dict[str, Any]:
    header = job.header
    content: dict[str, Any] = {split: f"images/{part.folder}" for part in job.parts for split in part.splits}
    content["task"] = job.task
    content["names"] = dict(zip(header.class_ids, header.names, strict=True))
    if header.exclusive is not None:
        content["exclusive"] = header.exclusive
    points = header.keypoints
    if TASKS[job.task].keypoints and points is not None:
        content["kpt_shape"] = [points.count, points.dims]
        if points.flip is not None:
            content["flip_idx"] = list(points.flip)
        if points.names:
            content["kpt_names"] = list(points.names)
        if points.skeleton:
            content["skeleton"] = [list(pair) for pair in points.skeleton]
    if header.attributes:
        content["attributes"] = {
            spec.name: {"values": list(spec.values), "multi_label": True} if spec.multi_label else list(spec.values)
            for spec in header.attributes
        }
    return content


def _rows(job: Job, record: Record) -> Iterator[str]:
    objects = record.instances
    scale = np.array(record.size[::-1], np.float64)
    for index, label in enumerate(objects.labels.tolist()):
        shape = _shape(job, record, index, scale)
        behind = [*_keypoints(job, objects, index, scale), *_attributes(job.header.attributes, objects, index)]
        yield " ".join(
            [str(job.header.class_ids[label]), *(number(v, _DIGITS) for v in shape.ravel().tolist()), *behind]
        )


def _shape(job: Job, record: Record, index: int, scale: np.ndarray) -> np.ndarray:
    """Centre, width and height of the box, or points of the outline or of the corners, over the side of the image."""
    objects = record.instances
    if TASKS[job.task].oriented and objects.corners is not None:
        return np.asarray(objects.corners[index].astype(np.float64) / scale)
    if TASKS[job.task].outlines and objects.polygons is not None and objects.polygons[index]:
        outline = _outline(job, objects.polygons[index], record.size)
        if outline is not None:
            return np.asarray(outline / scale)
    x1, y1, x2, y2 = objects.boxes[index].astype(np.float64).tolist()
    return np.array([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1] / np.tile(scale, 2))


def _outline(job: Job, parts: tuple[np.ndarray, ...], size: tuple[int, int]) -> np.ndarray | None:
    """One path inside the image; None where nothing of the outline is."""
    if len(parts) > 1:
        job.lose("parts of outlines (joined to one path by lines without area)", len(parts))
    path = join_parts(parts).astype(np.float64)
    height, width = size
    if path.min() < 0 or (path > (width, height)).any():
        job.lose("outlines beyond the image (clipped)")
        path = clip_polygon(path, float(width), float(height))
    if len(path) < 3 or flaw(path) is not None:
        job.lose("outlines without area inside the image")
        return None
    return path


def _keypoints(job: Job, objects: Instances, index: int, scale: np.ndarray) -> list[str]:
    spec = job.header.keypoints
    if not TASKS[job.task].keypoints or spec is None:
        return []
    given = objects.keypoints
    points = np.zeros((spec.count, 3)) if given is None else given[index].astype(np.float64)
    fields = []
    for (x, y), seen in zip((points[:, :2] / scale).tolist(), points[:, 2].tolist(), strict=True):
        if spec.dims == 3:
            fields += [number(x, _DIGITS), number(y, _DIGITS), str(int(seen))]
        else:
            fields += [number(x, _DIGITS), number(y, _DIGITS)] if seen > 0 else ["-1", "-1"]
    return fields


def _attributes(specs: tuple[AttributeSpec, ...], objects: Instances, index: int) -> list[str]:
    fields: list[str] = []
    for spec in specs:
        values = None if objects.attributes is None else objects.attributes[spec.name][index]
        if values is None:
            fields += ["-1"] * (len(spec.values) if spec.multi_label else 1)
        else:
            fields += [str(int(value)) for value in np.atleast_1d(values).tolist()]
    return fields
