# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""A COCO JSON file as a whole: parsed once, its parts checked, its annotations grouped by image.

Source: spec/datasets 3, cases 63 to 68.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from boxwright.datasets import codes
from boxwright.datasets.formats.coco_objects import CocoImage
from boxwright.datasets.formats.declarations import DeclarationError, attribute_specs, mirror_order
from boxwright.datasets.sample import Problem
from boxwright.errors import ConfigError, DataError
from boxwright.vocabulary import AttributeSpec, KeypointSpec, TaskName, task_with

_PEEK = 2**16  # bytes at either end of a file that are searched for its keys
_FEW = 5
_BOXES = task_with()
_SAMPLE = 100  # annotations that decide whether a file is made for outlines


@dataclass(frozen=True, slots=True)
class Category:
    """One class."""

    name: str
    keypoints: tuple[str, ...]
    skeleton: tuple[tuple[int, int], ...]  # indices from 0
    flip: tuple[int, ...] | None  # `flip_idx`, which our own writer adds where names do not say left and right


@dataclass(slots=True)
class CocoFile:
    """One parsed file."""

    path: Path
    categories: dict[int, Category] = field(default_factory=dict)
    attributes: tuple[AttributeSpec, ...] = ()
    keypoints: KeypointSpec | None = None
    task: TaskName = _BOXES
    problems: list[Problem] = field(default_factory=list)  # about the header, never errors
    errors: list[Problem] = field(default_factory=list)  # about images and annotations
    rows: dict[int, dict[str, Any]] = field(default_factory=dict)  # images by id
    annotations: dict[int, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))

    def file_names(self) -> list[str]:
        """Names of the images, those that can be used."""
        return [str(row["file_name"]) for row in self.rows.values()]

    def images(self) -> Iterator[CocoImage]:
        """Every listed image with its annotations."""
        for number, row in self.rows.items():
            size = row.get("height"), row.get("width")
            yield CocoImage(number, str(row["file_name"]), size, tuple(self.annotations.get(number, ())))


_parsed: dict[tuple[str, int, int], CocoFile] = {}  # at most one: from opening to listing


def load_coco(path: Path, *, keep: bool = False) -> CocoFile:
    """A parsed file; with `keep` it is remembered until it is asked for once more.

    Raises:
        DataError: not JSON, or the parts of a COCO file are missing.
    """
    try:
        facts = path.stat()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    state = str(path), facts.st_size, facts.st_mtime_ns
    known = _parsed.pop(state, None)
    file = _parse(path) if known is None else known
    if keep:
        _parsed.clear()
        _parsed[state] = file
    return file


def looks_like_coco(file: Path) -> bool:
    """Whether a JSON file has the keys of COCO annotations, as far as its two ends tell."""
    try:
        with file.open("rb") as stream:
            start = stream.read(_PEEK)
            stream.seek(max(file.stat().st_size - _PEEK, 0))
            ends = start + stream.read(_PEEK)
    except OSError:
        return False
    keys = (b'"images"', b'"annotations"', b'"categories"')
    return start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") and sum(key in ends for key in keys) >= 1


def _parse(path: Path) -> CocoFile:
    try:
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(data, dict):
        raise DataError(f"{path}: expected an object with images, annotations and categories")
    for key in ("images", "categories"):
        if not isinstance(data.get(key), list):
            raise DataError(f"{path}: {key}: missing; expected a list of objects")
    annotations = data.get("annotations", [])
    if not isinstance(annotations, list):
        raise DataError(f"{path}: annotations: expected a list of objects")
    file = CocoFile(path)
    for number, entry in enumerate(data["categories"]):
        _add_category(file, entry, number)
    file.attributes = _attributes(data, path)
    file.keypoints = _keypoints(file)
    _add_images(file, data["images"])
    _add_annotations(file, annotations)
    if any(isinstance(entry, dict) and entry.get("segmentation") for entry in annotations[:_SAMPLE]):
        file.task = task_with(outlines=True)
    return file


# -- classes and declarations --------------------------------------------------------------------------------------


def _add_category(file: CocoFile, entry: Any, number: int) -> None:
    key = f"{file.path}: categories[{number}]"
    if not isinstance(entry, dict) or type(entry.get("id")) is not int or not str(entry.get("name") or "").strip():
        raise DataError(f"{key}: expected an object with a whole number 'id' and a 'name', got {entry!r:.80}")
    if entry["id"] in file.categories:
        raise DataError(f"{key}: id {entry['id']} is given twice")
    points, pairs = entry.get("keypoints") or [], entry.get("skeleton") or []
    if not isinstance(points, list) or not isinstance(pairs, list):
        raise DataError(f"{key}: keypoints: expected a list of names, and skeleton a list of pairs")
    skeleton = []
    for pair in pairs:
        if (
            not isinstance(pair, list)
            or len(pair) != 2
            or not all(type(i) is int and 1 <= i <= len(points) for i in pair)
        ):
            raise DataError(f"{key}: skeleton: expected pairs of numbers from 1 to {len(points)}, got {pair!r:.60}")
        skeleton.append((pair[0] - 1, pair[1] - 1))
    names = tuple(str(point) for point in points)
    file.categories[entry["id"]] = Category(str(entry["name"]).strip(), names, tuple(skeleton), _flip(entry))


def _flip(entry: dict[str, Any]) -> tuple[int, ...] | None:
    given = entry.get("flip_idx")
    return tuple(given) if isinstance(given, list) and all(type(index) is int for index in given) else None


def _keypoints(file: CocoFile) -> KeypointSpec | None:
    """The keypoints of the classes that have some; all of these must have the same."""
    kinds = {category.keypoints: category for category in file.categories.values() if category.keypoints}
    if not kinds:
        return None
    if len(kinds) > 1:
        message = f"{len(kinds)} different lists of keypoints in categories; keypoints are read where all agree"
        file.problems.append(Problem(file.path.name, None, codes.KEYPOINTS_DIFFER, message, "keypoints not read"))
        return None
    names, category = next(iter(kinds.items()))
    try:
        return KeypointSpec(
            count=len(names), names=names, flip=category.flip or mirror_order(names), skeleton=category.skeleton
        )
    except ConfigError as error:
        raise DataError(f"{file.path}: categories: {error}") from None


def _attributes(data: dict[str, Any], path: Path) -> tuple[AttributeSpec, ...]:
    info = data.get("info")
    declared = data.get("attributes") or (info.get("attributes") if isinstance(info, dict) else None)
    if not declared:
        return ()
    try:
        return attribute_specs(declared)
    except DeclarationError as error:
        raise DataError(f"{path}: {error.key}: {error}") from None


# -- images and annotations ----------------------------------------------------------------------------------------


def _add_images(file: CocoFile, entries: list[Any]) -> None:
    wrong, twice = [], []
    for number, entry in enumerate(entries):
        if (
            not isinstance(entry, dict)
            or type(entry.get("id")) is not int
            or not isinstance(entry.get("file_name"), str)
        ):
            wrong.append(str(number))
        elif entry["id"] in file.rows:
            twice.append(str(entry["id"]))
        else:
            file.rows[entry["id"]] = entry
    if wrong:
        message = f"{len(wrong)} entries of images without a whole number 'id' and a 'file_name': {_few(wrong)}"
        file.errors.append(Problem(file.path.name, None, codes.BAD_IMAGE_ENTRY, message, "images dropped"))
    if twice:
        message = f"{len(twice)} image ids are given twice: {_few(twice)}; labels cannot be told apart"
        file.errors.append(Problem(file.path.name, None, codes.DUPLICATE_IMAGE_ID, message, "first one kept", "error"))


def _add_annotations(file: CocoFile, entries: list[Any]) -> None:
    unknown: Counter[str] = Counter()
    wrong, twice = [], []
    seen: set[int] = set()
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict):
            wrong.append(str(number))
            continue
        identity, image = entry.get("id"), entry.get("image_id")
        if type(identity) is int:
            if identity in seen:
                twice.append(str(identity))
            seen.add(identity)
        if type(image) is not int or image not in file.rows:
            unknown[str(image)] += 1
        else:
            file.annotations[image].append(entry)
    if wrong:
        message = f"{len(wrong)} annotations are no objects: {_few(wrong)}"
        file.errors.append(Problem(file.path.name, None, codes.BAD_ANNOTATION, message, "annotations dropped"))
    if twice:
        message = f"{len(twice)} annotation ids are given twice: {_few(twice)}; give each its own"
        file.errors.append(Problem(file.path.name, None, codes.DUPLICATE_ANNOTATION_ID, message, "none", "error"))
    if unknown:
        message = f"{unknown.total()} annotations name images that are not listed: image_id {_few(list(unknown))}"
        file.errors.append(Problem(file.path.name, None, codes.IMAGE_UNKNOWN, message, "annotations dropped"))


def _few(texts: list[str]) -> str:
    return ", ".join(texts[:_FEW]) + (", ..." if len(texts) > _FEW else "")
