# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Formats that keep the labels of all images of a split in one file: which file is which split, where images lie."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from boxwright.datasets import codes
from boxwright.datasets.formats.base import Item, shown
from boxwright.datasets.formats.listing import IMAGE_SUFFIXES, leads_outside, link_outside, reach
from boxwright.datasets.policy import DataConfig
from boxwright.datasets.sample import Problem, Split
from boxwright.errors import DataError

_SPLIT = re.compile(r"(?<![a-z])(train|validation|valid|val|test)(?![a-z])")
_SPLIT_OF: Mapping[str, Split] = {
    "train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"
}  # fmt: skip
_SAMPLE = 20  # images looked for before a folder is chosen
SPLITS: tuple[Split, ...] = ("train", "val", "test")


def split_of(name: str) -> Split | None:
    """The split that a file or folder name speaks of.

    >>> split_of("instances_val2017")
    'val'
    """
    found = _SPLIT.findall(name.lower())
    return _SPLIT_OF[found[-1]] if found else None


def file_splits(files: Iterable[Path]) -> dict[Split, tuple[Path, ...]]:
    """The first file of each split, by its name, or by its folder's where the name says nothing."""
    splits: dict[Split, tuple[Path, ...]] = {}
    for file in files:
        split = split_of(file.stem) or split_of(file.parent.name)
        if split is not None:
            splits.setdefault(split, (file,))
    return {split: splits[split] for split in SPLITS if split in splits}


def siblings(file: Path) -> dict[Split, tuple[Path, ...]]:
    """A file and those beside it whose names differ by the split only; {} when its name speaks of no split."""
    matches = list(_SPLIT.finditer(file.name.lower()))
    if not matches:
        return {}
    start, end = matches[-1].span()
    pattern = re.compile(re.escape(file.name[:start]) + r"[a-z]+" + re.escape(file.name[end:]), re.IGNORECASE)
    others = [other for other in sorted(file.parent.iterdir()) if pattern.fullmatch(other.name)]
    return file_splits([file, *others])


def one_name(names: Sequence[str] | None, usual: str, dataset: str) -> tuple[str]:
    """The name of the only class: the given one, or the usual.

    Raises:
        DataError: more than one name is given.
    """
    chosen = tuple(names or (usual,))
    if len(chosen) != 1:
        raise DataError(f"data.names: {dataset} has one class, got {len(chosen)} names")
    return (chosen[0],)


def complete(
    splits: dict[Split, tuple[Path, ...]], single: Path | None, source: Path
) -> tuple[dict[Split, tuple[Path, ...]], list[Problem]]:
    """Splits with at least train and val: where there is only one of all, it serves as both, and that is said."""
    only = next(iter(splits.values())) if len(splits) == 1 else None
    if not splits and single is not None:
        only = (single,)
    if only is not None:
        message = (
            f"nothing tells train from val: all images of {only[0].name} are used as both, so the measured "
            "quality says nothing about new images"
        )
        return {"train": only, "val": only}, [Problem(source.name, None, codes.NO_VAL_SPLIT, message, "none")]
    if "val" not in splits and "test" in splits:
        message = f"there is no val split; {splits['test'][0].name} is used as val"
        return {**splits, "val": splits["test"]}, [Problem(source.name, None, codes.TEST_AS_VAL, message, "none")]
    if "train" not in splits and splits:
        message = f"there is no train split; {splits['val'][0].name} is used to train"
        return {"train": splits["val"], **splits}, [Problem(source.name, None, codes.NO_TRAIN_SPLIT, message, "none")]
    return splits, []


class ImageFolders:
    """Finds the images that a label file names."""

    def __init__(self, folders: Sequence[Path], names: Sequence[str], root: Path, config: DataConfig) -> None:
        existing = [folder for folder in dict.fromkeys(folders) if reach(folder).is_dir()]
        sample = names[:: max(len(names) // _SAMPLE, 1)][:_SAMPLE]
        self._folders = sorted(existing, key=lambda folder: -sum((reach(folder) / name).is_file() for name in sample))
        self._root, self._follow = root, config.follow_links

    def find(self, name: str) -> Path:
        """The image of this name, in the folder that has most of them or else in another; it may not exist."""
        paths = [folder / name for folder in self._folders]
        return next((path for path in paths if reach(path).is_file()), paths[0] if paths else self._root / name)

    def item(self, path: Path, label: Path, content: object, problems: list[Problem]) -> Item | None:
        """The item of an image; None, with a problem, where it is a link out of the dataset."""
        name = shown(path, self._root)
        if not self._follow and leads_outside(path, (self._root, *self._folders)):
            problems.append(link_outside(name))
            return None
        return Item(_reached(path), label, name, shown(label, self._root), content)


def _reached(path: Path) -> Path:
    folder = reach(path.parent)
    return path if folder is path.parent else folder / path.name


def unsafe_name(name: str) -> str | None:
    """Why a file name from a label file is refused: absolute, or with a way out of its folder."""
    parts = name.replace("\\", "/").split("/")
    if not name or "\0" in name:
        return "the name is empty or holds a zero byte"
    if name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name) or ".." in parts:
        return "the path is absolute or leaves its folder"
    return None


def images_below(folder: Path, depth: int = 3) -> dict[str, Path]:
    """Image files below a folder by stem, not following links to folders."""
    found: dict[str, Path] = {}
    level = str(folder).count(os.sep)
    for place, folders, names in os.walk(folder):
        folders.sort()
        if place.count(os.sep) - level >= depth:
            folders.clear()
        for name in sorted(names):
            stem, suffix = os.path.splitext(name)  # noqa: PTH122 (a Path per entry is slow)
            if suffix.lower() in IMAGE_SUFFIXES:
                found.setdefault(stem, Path(place) / name)
    return found
