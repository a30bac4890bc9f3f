# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""A YOLO `data.yaml`, as people have it, to a `DatasetHeader`. Nothing in it is run or downloaded.

Source: spec/datasets 2; the keys kpt_names, skeleton, task and attributes are ours.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from boxwright.datasets import codes
from boxwright.datasets.codes import Code, Severity
from boxwright.datasets.formats.base import shown
from boxwright.datasets.formats.declarations import DeclarationError, attribute_specs, mirror_order
from boxwright.datasets.formats.listing import IMAGE_SUFFIXES, reach
from boxwright.datasets.formats.strict_yaml import Document, Scalar, Value, load_strict
from boxwright.datasets.sample import DatasetHeader, Problem, Split
from boxwright.errors import ConfigError, DataError
from boxwright.vocabulary import TASK_NAMES, TASKS, AttributeSpec, KeypointSpec, TaskName, task_with

DATASETS_FOLDER = "BOXWRIGHT_DATASETS"  # environment variable: where relative `path` values are looked up second
_MAX_CLASSES = 1_000_000
_SPLIT_KEYS: tuple[tuple[Split, tuple[str, ...]], ...] = (
    ("train", ("train",)),
    ("val", ("val", "validation", "valid")),
    ("test", ("test",)),
)


@dataclass(slots=True)
class _Reader:
    """One YAML file while it is read."""

    path: Path
    document: Document
    problems: list[Problem] = field(default_factory=list)

    def error(self, key: str, message: str) -> DataError:
        top = key.split(".", maxsplit=1)[0]
        line = self.document.lines.get(top)
        where = f"{self.path}, line {line}" if line else f"{self.path}"
        return DataError(f"{where}: {key}: {message}")

    def remark(self, line: int | None, code: Code, message: str, severity: Severity = "warning") -> None:
        self.problems.append(Problem(self.path.name, line, code, message, "none", severity))

    def get(self, key: str) -> Value | None:
        """The value of a key; None when it is missing or empty."""
        value = self.document.values.get(key)
        return None if isinstance(value, Scalar) and value.kind == "null" else value


def read_data_yaml(path: Path) -> DatasetHeader:
    """The header that a YOLO data.yaml describes.

    Raises:
        DataError: a key is missing or wrong, or a split's files do not exist; the message names the key and line.
    """
    reader = _Reader(path, load_strict(path))
    names, class_ids = _names(reader)
    root = _root(reader)
    splits = _splits(reader, root)
    _remark_on_other_keys(reader)
    return DatasetHeader(
        "yolo",
        root,
        path,
        tuple(names),
        tuple(class_ids),
        splits,
        tuple(reader.problems),
        task=_task(reader),
        keypoints=_read_keypoints(reader),
        attributes=_read_attributes(reader),
        exclusive=_exclusive(reader),
    )


# -- classes -------------------------------------------------------------------------------------------------------


def _names(reader: _Reader) -> tuple[list[str], list[int]]:
    value, count = reader.get("names"), _count(reader)
    if value is None:
        if count is None:
            raise reader.error("names", "missing; write 'names: [cat, dog]', or 'nc: 2' for class_0, class_1")
        return [f"class_{index}" for index in range(count)], list(range(count))
    if isinstance(value, Scalar):
        raise reader.error("names", f"expected a list or a mapping of ids to names, got the text {value.text!r}")
    by_id = _ids(reader, value) if isinstance(value, dict) else dict(enumerate(value))
    names = [_name(reader, key, by_id[key]) for key in sorted(by_id)]
    if not names:
        raise reader.error("names", "empty; at least one class is needed")
    if count is not None and count != len(names):
        raise reader.error("nc", f"expected {len(names)}, the number of names, got {count}")
    _remark_on_names(reader, names, sorted(by_id))
    return names, sorted(by_id)


def _count(reader: _Reader) -> int | None:
    value = reader.get("nc")
    if value is None:
        return None
    number = _integer(value)
    if number is None or not 1 <= number <= _MAX_CLASSES:
        raise reader.error("nc", f"expected a whole number from 1 to {_MAX_CLASSES:,}, got {_shown_value(value)}")
    return number


def _ids(reader: _Reader, value: Mapping[str, Value]) -> dict[int, Value]:
    by_id: dict[int, Value] = {}
    for key, name in value.items():
        text = key.strip()
        if not (text.isascii() and text.lstrip("+").isdigit()):
            kind = "negative" if text.startswith("-") else "not a whole number"
            raise reader.error(f"names.{key}", f"the class id is {kind}; expected 0, 1, 2, ...")
        if int(text) in by_id:
            raise reader.error(f"names.{key}", f"class id {int(text)} is given twice")
        by_id[int(text)] = name
    return by_id


def _name(reader: _Reader, key: int, value: Value) -> str:
    if not isinstance(value, Scalar):
        raise reader.error(f"names.{key}", f"expected a name, got {_shown_value(value)}")
    if not value.text.strip():
        raise reader.error(f"names.{key}", "the name is empty")
    if value.kind != "str":
        message = f"names.{key}: YAML reads {value.text} as {value.kind}; kept as the text {value.text!r}, quote it"
        reader.remark(value.line, codes.NAME_NOT_TEXT, message)
    return value.text


def _remark_on_names(reader: _Reader, names: list[str], ids: list[int]) -> None:
    line = reader.document.lines["names"]
    if ids != list(range(len(ids))):
        message = f"class ids have gaps ({ids[0]}..{ids[-1]} for {len(ids)} classes); indices follow the order of ids"
        reader.remark(line, codes.CLASS_IDS_WITH_GAPS, message, "note")
    for name in sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else ():
        reader.remark(line, codes.DUPLICATE_NAME, f"the name {name!r} is given to several classes")


# -- places --------------------------------------------------------------------------------------------------------


def _root(reader: _Reader) -> Path:
    folder = reader.path.parent
    value = reader.get("path")
    if value is None:
        return folder
    if not isinstance(value, Scalar):
        raise reader.error("path", f"expected a folder, got {_shown_value(value)}")
    wanted = Path(value.text.strip()).expanduser()
    tried = [folder / wanted]
    if os.environ.get(DATASETS_FOLDER):
        tried.append(Path(os.environ[DATASETS_FOLDER]) / wanted)
    for place in tried:
        if place.is_dir():
            return Path(os.path.normpath(place))
    if all(_exists(folder, entry) for entry in _entries(reader, "train") + _entries(reader, "val")):
        message = f"path: {value.text} does not exist; the folder of this file holds the data and is used instead"
        reader.remark(value.line, codes.PATH_MISSING, message)
        return folder
    places = " nor ".join(str(place) for place in tried)
    raise reader.error("path", f"there is no folder {places}; relative paths start at this file's folder"
                       + _download_hint(reader))  # fmt: skip


def _entries(reader: _Reader, key: str) -> list[str]:
    value = reader.get(key)
    if value is None:
        return []
    parts = value if isinstance(value, list) else [value]
    texts = []
    for part in parts:
        if not isinstance(part, Scalar) or not part.text.strip():
            raise reader.error(key, f"expected a folder, a text file or a list of these, got {_shown_value(value)}")
        texts.append(part.text.strip())
    return texts


def _exists(root: Path, entry: str) -> bool:
    return reach(root / entry).exists()


def _splits(reader: _Reader, root: Path) -> dict[Split, tuple[Path, ...]]:
    splits: dict[Split, tuple[Path, ...]] = {}
    for split, keys in _SPLIT_KEYS:
        key = next((key for key in keys if reader.get(key) is not None), None)
        entries = _entries(reader, key) if key else []
        if key and entries:
            splits[split] = tuple(_place(reader, root, key, entry) for entry in entries)
        elif split == "val":
            hint = "to measure on the training images on purpose, repeat the value of 'train'"
            raise reader.error("val", f"missing; name the folder or list of validation images ({hint})")
        elif split == "train":
            raise reader.error("train", "missing; name the folder or list of training images")
    return splits


def _place(reader: _Reader, root: Path, key: str, entry: str) -> Path:
    if "://" in entry:
        raise reader.error(key, f"{entry} is an address; nothing is downloaded, name a folder")
    path = Path(os.path.normpath(root / Path(entry).expanduser()))
    if not reach(path).exists() and entry.startswith("../"):
        # Written by a labelling service for a layout of its own; the folder then lies beside the YAML file.
        inside = Path(os.path.normpath(root / entry.removeprefix("../")))
        if reach(inside).exists():
            message = f"{key}: {entry} does not exist; {entry.removeprefix('../')} does and is used instead"
            reader.remark(reader.document.lines[key], codes.PATH_MISSING, message)
            path = inside
    found = reach(path)
    if not found.exists():
        raise reader.error(key, f"there is no {path}" + _download_hint(reader))
    if found.is_file() and path.suffix.lower() not in IMAGE_SUFFIXES | {".txt"}:
        raise reader.error(key, f"expected a folder of images or a .txt list, got the file {path}")
    if found != path:
        message = f"{shown(path, root)} passes a link that is stored as a text file; read {found}"
        reader.remark(reader.document.lines[key], codes.LINK_AS_TEXT, message, "note")
    return path


# -- the rest ------------------------------------------------------------------------------------------------------


def _remark_on_other_keys(reader: _Reader) -> None:
    lines = reader.document.lines
    if reader.get("download") is not None:
        message = "download: is never run; fetch the data yourself when it is missing"
        reader.remark(lines["download"], codes.DOWNLOAD_IGNORED, message, "note")
    channels = reader.get("channels")
    if channels is not None and _integer(channels) != 3:
        reader.remark(lines["channels"], codes.CHANNELS_IGNORED, "channels: images are always read as RGB, 3 channels")
    if reader.get("minival") is not None:
        reader.remark(lines["minival"], codes.SPLIT_IGNORED, "minival: only train, val and test are read", "note")


def _download_hint(reader: _Reader) -> str:
    value = reader.get("download")
    if value is None:
        return ""
    return f"; the file's 'download: {_shown_value(value)[:80]}' is never run, fetch the data yourself"


def _task(reader: _Reader) -> TaskName | None:
    task = _read_task(reader)
    if task is not None and TASKS[task].whole_image:
        raise reader.error("task", "to classify, name a folder with train/<class name>/ and val/<class name>/ instead")
    return task_with(keypoints=True) if task is None and reader.get("kpt_shape") is not None else task


def _exclusive(reader: _Reader) -> bool | None:
    value = reader.get("exclusive")
    if value is None:
        return None
    if not isinstance(value, Scalar) or value.kind != "bool":
        raise reader.error(
            "exclusive",
            f"expected true (every object has exactly one of the classes) or false, got {_shown_value(value)}",
        )
    return value.text.strip().lower() in ("true", "yes", "on")


# -- what rows hold ------------------------------------------------------------------------------------------------


def _read_task(reader: _Reader) -> TaskName | None:
    """What the labels are made for, where the file says so.

    Raises:
        DataError: not the name of a task.
    """
    value = reader.get("task")
    if value is None:
        return None
    text = value.text.strip() if isinstance(value, Scalar) else ""
    task = next((name for name in TASK_NAMES if name == text), None)
    if task is None:
        raise reader.error("task", f"expected one of {', '.join(TASK_NAMES)}, got {_shown_value(value)}")
    return task


def _read_keypoints(reader: _Reader) -> KeypointSpec | None:
    """The keypoints of a row; None without `kpt_shape`.

    Raises:
        DataError: a key is wrong, or does not fit the number of keypoints.
    """
    value = reader.get("kpt_shape")
    if value is None:
        for key in ("flip_idx", "kpt_names", "skeleton"):
            if reader.get(key):
                raise reader.error(key, "given without kpt_shape; write 'kpt_shape: [number of keypoints, 2 or 3]'")
        return None
    numbers = [_integer(part) for part in value] if isinstance(value, list) else []
    count, dims = numbers if len(numbers) == 2 else (None, None)
    if count is None or count < 1 or dims not in (2, 3):
        raise reader.error("kpt_shape", f"expected [number of keypoints, 2 or 3], got {_shown_value(value)}")
    names = _keypoint_names(reader, count)
    flip = _indices(reader.get("flip_idx"), "flip_idx", reader)
    if flip is not None and len(flip) != count:
        raise reader.error("flip_idx", f"expected {count} indices, one for each keypoint, got {len(flip)}")
    if flip is not None and (
        sorted(flip) != list(range(count)) or any(flip[other] != index for index, other in enumerate(flip))
    ):
        raise reader.error("flip_idx", f"expected an order of 0 to {count - 1} that undoes itself, got {list(flip)}")
    try:
        return KeypointSpec(
            count=count,
            dims=3 if dims == 3 else 2,
            names=names,
            flip=mirror_order(names) if flip is None else flip,
            skeleton=_skeleton(reader),
        )
    except ConfigError as error:
        raise reader.error("skeleton", str(error).partition(": ")[2]) from None


def _keypoint_names(reader: _Reader, count: int) -> tuple[str, ...]:
    value = reader.get("kpt_names")
    if value is None:
        return ()
    if isinstance(value, dict):  # a list for each class; they must agree
        lists = [[part.text for part in names] for names in value.values() if _is_texts(names)]
        if len(lists) != len(value) or not lists or any(names != lists[0] for names in lists):
            raise reader.error("kpt_names", "expected the same list of names for every class")
        value = next(iter(value.values()))
    if not isinstance(value, list) or not _is_texts(value) or len(value) != count:
        raise reader.error("kpt_names", f"expected {count} names, one for each keypoint, got {_shown_value(value)}")
    return tuple(part.text for part in value)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(part, Scalar) and part.text.strip() for part in value)


def _skeleton(reader: _Reader) -> tuple[tuple[int, int], ...]:
    value = reader.get("skeleton")
    if value is None:
        return ()
    pairs = [_indices(pair, "skeleton", reader) for pair in value] if isinstance(value, list) else [None]
    if any(pair is None or len(pair) != 2 for pair in pairs):
        raise reader.error("skeleton", f"expected pairs of keypoint indices from 0, got {_shown_value(value)}")
    return tuple((pair[0], pair[1]) for pair in pairs if pair is not None)


def _indices(value: Value | None, key: str, reader: _Reader) -> tuple[int, ...] | None:
    if value is None:
        return None
    numbers = [_integer(part) for part in value] if isinstance(value, list) else [None]
    if any(number is None or number < 0 for number in numbers):
        raise reader.error(key, f"expected a list of indices from 0, got {_shown_value(value)}")
    return tuple(number for number in numbers if number is not None)


def _read_attributes(reader: _Reader) -> tuple[AttributeSpec, ...]:
    """The attributes that rows carry behind their coordinates, in this order.

    Raises:
        DataError: not a mapping of names to values.
    """
    value = reader.get("attributes")
    if value is None:
        return ()
    try:
        return attribute_specs(_plain(value))
    except DeclarationError as error:
        raise reader.error(error.key, str(error)) from None


def _plain(value: Value) -> Any:
    if isinstance(value, Scalar):
        return value.text
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value]


def _integer(value: Value) -> int | None:
    """A scalar that is a whole number."""
    text = value.text.strip() if isinstance(value, Scalar) else ""
    return int(text) if text.isascii() and text.lstrip("+-").isdigit() and len(text) < 20 else None


def _shown_value(value: Value) -> str:
    """A value as an error names it."""
    if isinstance(value, Scalar):
        return repr(value.text)
    return f"a {'list' if isinstance(value, list) else 'mapping'} of {len(value)}"
