# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""COCO JSON files: where they lie, what classes, keypoints and attributes they declare, which images they list.

Attributes of objects are declared at the top level (or inside `info`) in the form of data.yaml:
`"attributes": {"colour": ["red", "blue"], "marks": {"values": ["dot"], "multi_label": true}}`; annotations carry
`"attributes": {"colour": "red", "marks": ["dot"]}`. Source: spec/datasets 3.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from boxwright.datasets import codes
from boxwright.datasets.formats.base import Item, Labels, Listing
from boxwright.datasets.formats.coco_file import CocoFile, load_coco, looks_like_coco
from boxwright.datasets.formats.coco_objects import CocoImage, read_objects
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
from boxwright.datasets.sample import DatasetHeader, Problem, Split
from boxwright.errors import DataError

_FOLDERS = ("annotations", ".", "train", "valid", "val", "test")
_YAML_SPLIT = re.compile(rb"^(train|val|validation|valid|test)\s*:\s*[\"']?[^\s\"']+\.json\b", re.MULTILINE)
_KINDS = ("instances", "person_keypoints")  # of several files of a split, the first of these is read


@dataclass(frozen=True, slots=True)
class Coco:
    """Reader of COCO JSON annotations."""

    name: str = "coco"
    version: int = 2

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
            task="pose" if file.keypoints is not None else file.task,
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
