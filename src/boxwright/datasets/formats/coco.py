# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""COCO JSON files, read and written: splits, classes, the images listed; annotations are read by `coco_objects`.

Attributes of objects are declared at the top level (or inside `info`) in the form of data.yaml:
`"attributes": {"colour": ["red", "blue"], "marks": {"values": ["dot"], "multi_label": true}}`; annotations carry
`"attributes": {"colour": "red", "marks": ["dot"]}`. Source: spec/datasets 3.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from boxwright.datasets import codes
from boxwright.datasets.formats.base import Item, Labels, Listing
from boxwright.datasets.formats.coco_file import CocoFile, load_coco, looks_like_coco
from boxwright.datasets.formats.coco_objects import CocoImage, read_objects
from boxwright.datasets.formats.declarations import mirror_order
from boxwright.datasets.formats.job import OBJECT_TASKS, Detail, Holds, Job, Part, pixels
from boxwright.datasets.formats.rle import encode_rle
from boxwright.datasets.formats.shapes import polygon_area
from boxwright.datasets.formats.single_file import (
    SPLITS,
    ImageFolders,
    complete,
    file_splits,
    siblings,
    split_of,
    unsafe_name,
)
from boxwright.datasets.formats.strict_yaml import Scalar, load_strict
from boxwright.datasets.image_header import ImageHeader
from boxwright.datasets.policy import DataConfig
from boxwright.datasets.raster import outline_pixels
from boxwright.datasets.sample import DatasetHeader, Instances, Polygons, Problem, Record, Split
from boxwright.errors import DataError
from boxwright.vocabulary import TASKS, AttributeSpec, task_with

_DETAILS: frozenset[Detail] = frozenset(("polygons", "keypoints", "areas", "ignore", "attributes"))
_FOLDERS = ("annotations", ".", "train", "valid", "val", "test")
_YAML_SPLIT = re.compile(rb"^(train|val|validation|valid|test)\s*:\s*[\"']?[^\s\"']+\.json\b", re.MULTILINE)
_KINDS = ("instances", "person_keypoints")  # of several files of a split, the first of these is read


@dataclass(frozen=True, slots=True)
class Coco:
    """COCO JSON annotations."""

    name: str = "coco"
    version: int = 3

    @property
    def holds(self) -> Holds:
        """Everything but the corners of boxes; of oriented ones they take the place of the outline."""
        return {name: _DETAILS | {"corners"} if TASKS[name].oriented else _DETAILS for name in OBJECT_TASKS}

    def detect(self, source: Path) -> bool:
        """A COCO file, a folder with some, or a YAML file whose splits are JSON files."""
        if source.is_file():
            if source.suffix.lower() in (".yaml", ".yml"):
                return _names_json(source)
            return source.suffix.lower() == ".json" and looks_like_coco(source)
        yaml_files = [*source.glob("*.yaml"), *source.glob("*.yml")] if source.is_dir() else []
        if any(not _names_json(file) for file in yaml_files):
            return False  # a description of its own kind
        return any(looks_like_coco(file) for file in _json_files(source))

    def header(self, source: Path, names: Sequence[str] | None) -> DatasetHeader:
        """Splits by file name (train, val, test); classes by rank of their id.

        Raises:
            DataError: a file cannot be read, or its categories are wrong.
        """
        splits, problems = _splits(source)
        if not splits:
            raise DataError(
                f"{source}: there are several COCO files and none is called train; expected names such as "
                "instances_train.json and instances_val.json, or a data.yaml with 'train: a.json' and 'val: b.json'"
            )
        file = load_coco(splits["train"][0], keep=True)
        ids = sorted(file.categories)
        if not ids:
            raise DataError(f"{file.path}: categories: empty; at least one class is needed")
        problems += file.problems
        names_of = tuple(file.categories[number].name for number in ids)
        if ids != list(range(len(ids))):
            message = f"category ids run from {ids[0]} to {ids[-1]} for {len(ids)} classes; indices follow their order"
            problems.append(Problem(file.path.name, None, codes.CLASS_IDS_WITH_GAPS, message, "none", "note"))
        root = source if source.is_dir() else _root(splits["train"][0])
        return DatasetHeader(
            "coco", root, source, names_of, tuple(ids), splits, tuple(problems),
            task=file.task if file.keypoints is None else task_with(keypoints=True),
            keypoints=file.keypoints, attributes=file.attributes,
        )  # fmt: skip

    def items(self, header: DatasetHeader, split: Split, config: DataConfig) -> Listing:
        """Images that the split's file lists, by file name, each with its annotations.

        Raises:
            DataError: the file cannot be read, or its categories differ from those of the train split.
        """
        items: list[Item] = []
        problems: list[Problem] = []
        dropped = 0
        for path in header.splits[split]:
            file = load_coco(path)
            _compare(file, header)
            problems += file.errors
            folders = ImageFolders(_image_folders(path, header.root), file.file_names(), header.root, config)
            seen: set[str] = set()
            for image in file.images():
                reason = unsafe_name(image.file_name)
                if reason is None and image.file_name in seen:
                    reason = "the file is listed for another image id already"
                if reason is not None:
                    code = codes.BAD_PATH if image.file_name not in seen else codes.DUPLICATE_IMAGE
                    message = f"image {image.id}: file_name {image.file_name!r}: {reason}"
                    problems.append(Problem(path.name, None, code, message, "image dropped", "error"))
                    dropped += 1
                    continue
                seen.add(image.file_name)
                item = folders.item(folders.find(image.file_name.replace("\\", "/")), path, image, problems)
                if item is not None:
                    items.append(item)
                else:
                    dropped += 1
        return Listing(tuple(sorted(items, key=lambda item: item.image.as_posix())), tuple(problems), dropped)

    def read(self, item: Item, image: ImageHeader, header: DatasetHeader, config: DataConfig) -> Labels:
        """The annotations of one image; crowds become ignore regions."""
        assert isinstance(item.content, CocoImage)
        return read_objects(item.content, item.label_name, image.size, header, config)

    def write(self, job: Job) -> str:
        """Writes `annotations/instances_<split>.json` and `images/<split>`; the folder itself is the dataset."""
        if job.header.exclusive is not None:
            job.lose("statement that classes are exclusive or not")
        categories = _categories(job)
        for part in job.parts:
            images, annotations = _contents(job, part)
            for split in part.splits:
                prefix = "" if split == part.folder else f"{part.folder}/"  # found below images/
                content: dict[str, Any] = {"info": {"description": "converted by boxwright"}}
                if job.header.attributes:
                    content["attributes"] = {
                        spec.name: {"values": list(spec.values), "multi_label": spec.multi_label}
                        for spec in job.header.attributes
                    }
                content["images"] = [{**image, "file_name": prefix + image["file_name"]} for image in images]
                content |= {"annotations": annotations, "categories": categories}
                job.write(f"annotations/instances_{split}.json", json.dumps(content, ensure_ascii=False))
        return "."


def _names_json(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            return _YAML_SPLIT.search(stream.read(2**16)) is not None
    except OSError:
        return False


def _json_files(folder: Path) -> list[Path]:
    files = [file for name in _FOLDERS for file in sorted((folder / name).glob("*.json"))]
    return sorted(files, key=lambda file: next((i for i, kind in enumerate(_KINDS) if file.name.startswith(kind)), 9))


def _splits(source: Path) -> tuple[dict[Split, tuple[Path, ...]], list[Problem]]:
    if source.is_dir():
        described = next((file for file in sorted(source.glob("*.y*ml")) if _names_json(file)), None)
        if described is not None:
            return _yaml_splits(described), []
        files = [file for file in _json_files(source) if looks_like_coco(file)]
        return complete(file_splits(files), files[0] if len(files) == 1 else None, source)
    if source.suffix.lower() == ".json":
        return complete(siblings(source), source, source)
    return _yaml_splits(source), []


def _yaml_splits(file: Path) -> dict[Split, tuple[Path, ...]]:
    """Splits of a YAML file that names JSON files instead of images."""
    document = load_strict(file)
    base = document.values.get("path")
    root = file.parent / base.text.strip() if isinstance(base, Scalar) else file.parent
    splits: dict[Split, tuple[Path, ...]] = {}
    for key, value in document.values.items():
        split = split_of(key)
        if split is None or key not in ("train", "val", "valid", "validation", "test"):
            continue
        path = root / value.text.strip() if isinstance(value, Scalar) else None
        if path is None or not path.is_file():
            raise DataError(
                f"{file}, line {document.lines[key]}: {key}: expected a COCO JSON file, got {path or value}"
            )
        splits[split] = (path,)
    for split in ("train", "val"):
        if split not in splits:
            raise DataError(f"{file}: {split}: missing; name the COCO JSON file of the {split} split")
    return {split: splits[split] for split in SPLITS if split in splits}


def _root(file: Path) -> Path:
    """The dataset's folder: that of the file, or the one above `annotations`."""
    return file.parent.parent if file.parent.name == "annotations" else file.parent


def _image_folders(file: Path, root: Path) -> list[Path]:
    """Folders that may hold the images of a file, the likeliest first."""
    split = split_of(file.stem) or split_of(file.parent.name)
    year = re.search(r"(train|val|test)\w*\d+", file.stem)
    names = [year.group(0)] if year else []
    names += [split] if split else []
    names += ["valid"] if split == "val" else []
    places = [place for name in names for place in (root / name, root / "images" / name, root / name / "images")]
    return [*places, file.parent, file.parent / "images", root / "images", root, root / "JPEGImages"]


def _compare(file: CocoFile, header: DatasetHeader) -> None:
    names = {number: category.name for number, category in file.categories.items()}
    wanted = dict(zip(header.class_ids, header.names, strict=True))
    if names != wanted:
        differing = sorted(number for number in names.keys() | wanted.keys() if names.get(number) != wanted.get(number))
        first = differing[0]
        raise DataError(
            f"{file.path}: categories: expected those of the train split; id {first} is {names.get(first)!r} here and "
            f"{wanted.get(first)!r} there"
        )


# -- writing -------------------------------------------------------------------------------------------------------


def _categories(job: Job) -> list[dict[str, Any]]:
    points = job.header.keypoints
    more: dict[str, Any] = {}
    if points is not None:
        names = points.names or tuple(f"keypoint_{index}" for index in range(points.count))
        more = {"keypoints": list(names), "skeleton": [[first + 1, second + 1] for first, second in points.skeleton]}
        if points.flip is not None and points.flip != mirror_order(names):
            more["flip_idx"] = list(points.flip)  # ours: COCO leaves it to the names
    return [
        {"id": number, "name": name, **more}
        for number, name in zip(job.header.class_ids, job.header.names, strict=True)
    ]


def _contents(job: Job, part: Part) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, record in enumerate(part.records, 1):
        name = job.place(record, f"images/{part.folder}", part.folder)
        job.count_lost(record.instances)
        height, width = record.size
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        for entry in [*_objects(job, record), *_regions(job, record)]:
            annotations.append({"id": len(annotations) + 1, "image_id": number, **entry})
    return images, annotations


def _objects(job: Job, record: Record) -> list[dict[str, Any]]:
    objects = record.instances
    return [_object(job, objects, index) for index in range(len(objects))]


def _object(job: Job, objects: Instances, index: int) -> dict[str, Any]:
    x1, y1, x2, y2 = objects.boxes[index].astype(np.float64).tolist()
    parts = () if objects.polygons is None else objects.polygons[index]
    if TASKS[job.task].oriented and objects.corners is not None:
        if parts:
            job.lose("outlines (the oriented box takes their place)")
        parts = (objects.corners[index],)
    area = sum(polygon_area(part) for part in parts) if parts else (x2 - x1) * (y2 - y1)
    if objects.areas is not None:
        area = float(objects.areas[index])
    entry: dict[str, Any] = {
        "category_id": job.header.class_ids[int(objects.labels[index])],
        "bbox": pixels(np.array([x1, y1, x2 - x1, y2 - y1])),
        "area": round(area, 4),
        "iscrowd": 0,
    }
    if parts:
        entry["segmentation"] = [pixels(part) for part in parts]
    if objects.keypoints is not None:
        points = objects.keypoints[index]
        entry["keypoints"] = pixels(points)
        entry["num_keypoints"] = int((points[:, 2] > 0).sum())
    known = {} if objects.attributes is None else _attributes(job.header.attributes, objects.attributes, index)
    if known:
        entry["attributes"] = known
    return entry


def _attributes(specs: tuple[AttributeSpec, ...], values: Any, index: int) -> dict[str, Any]:
    known: dict[str, Any] = {}
    for spec in specs:
        value = values[spec.name][index]
        if not spec.multi_label:
            if int(value) >= 0:
                known[spec.name] = spec.values[int(value)]
        elif (value >= 0).all():
            known[spec.name] = [name for name, flag in zip(spec.values, value.tolist(), strict=True) if flag > 0]
        elif (value >= 0).any():
            known[spec.name] = [int(flag) for flag in value.tolist()]
    return known


def _regions(job: Job, record: Record) -> list[dict[str, Any]]:
    """Ignore regions as crowds, their shapes as run lengths; one for all classes becomes one for each class."""
    objects = record.instances
    if objects.ignore is None:
        return []
    count = len(objects.ignore)
    labels = [-1] * count if objects.ignore_labels is None else objects.ignore_labels.tolist()
    shapes = ((),) * count if objects.ignore_outlines is None else objects.ignore_outlines
    entries = []
    for box, label, shape in zip(objects.ignore.astype(np.float64), labels, shapes, strict=True):
        x1, y1, x2, y2 = box.tolist()
        more = _run_lengths(job, shape, record.size) if shape else {}
        for number in job.header.class_ids if label < 0 else (job.header.class_ids[label],):
            bbox = pixels(np.array([x1, y1, x2 - x1, y2 - y1]))
            area = round((x2 - x1) * (y2 - y1), 4)
            entries.append({"category_id": number, "bbox": bbox, "area": area, "iscrowd": 1, **more})
    return entries


def _run_lengths(job: Job, shape: Polygons, size: tuple[int, int]) -> dict[str, Any]:
    """Area and segmentation of a crowd."""
    if any((part != part.round()).any() for part in shape):
        job.lose("parts of a pixel at the edges of crowds (written as whole pixels)")
    patch = outline_pixels(shape, size)
    mask = np.zeros(size, np.bool_)
    mask[patch.window] = patch.pixels
    return {"area": int(mask.sum()), "segmentation": encode_rle(mask)}
