# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""CrowdHuman: `annotation_train.odgt` and `annotation_val.odgt`, a JSON object a line, images by their ID.

`data.box` chooses which of a person's boxes is read: full (drawn on where hidden, often beyond the image), visible or
head. Masks of crowds and what is marked to ignore become ignore regions. Source: Shao et al. 2018, arXiv:1805.00123.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boxwright.datasets import codes
from boxwright.datasets.formats.base import Item, Labels, Listing, shown
from boxwright.datasets.formats.collect import Collector, EntryError
from boxwright.datasets.formats.job import Holds
from boxwright.datasets.formats.objects import ReadObject, Wanted
from boxwright.datasets.formats.single_file import ImageFolders, complete, file_splits, images_below, one_name, siblings
from boxwright.datasets.image_header import ImageHeader
from boxwright.datasets.policy import DataConfig
from boxwright.datasets.sample import DatasetHeader, Problem, Split
from boxwright.errors import DataError
from boxwright.vocabulary import task_with

_BOXES = {"full": "fbox", "visible": "vbox", "head": "hbox"}
_READ = ("ignore", "box_id")  # flags that are used, or number the boxes only


@dataclass(frozen=True, slots=True)
class _People:
    """The entries of one image."""

    id: str
    entries: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class CrowdHuman:
    """Reader of CrowdHuman boxes."""

    name: str = "crowdhuman"
    version: int = 3
    write: None = None

    @property
    def holds(self) -> Holds:
        """Nothing: it is only read."""
        return {}

    def detect(self, source: Path) -> bool:
        """An `.odgt` file, or a folder with one."""
        return source.suffix == ".odgt" if source.is_file() else any(source.glob("*.odgt"))

    def header(self, source: Path, names: Sequence[str] | None) -> DatasetHeader:
        """One class, person (or `names`); splits by file name.

        Raises:
            DataError: more than one name is given, or no file says which split it is.
        """
        files = sorted(source.glob("*.odgt")) if source.is_dir() else [source]
        splits, problems = complete(file_splits(files) if source.is_dir() else siblings(source), files[0], source)
        chosen = one_name(names, "person", "CrowdHuman")
        root = source if source.is_dir() else source.parent
        return DatasetHeader("crowdhuman", root, source, chosen, (0,), splits, tuple(problems), task=task_with())

    def items(self, header: DatasetHeader, split: Split, config: DataConfig) -> Listing:
        """The images that the split's file lists, found by their ID anywhere below the folder.

        Raises:
            DataError: the file cannot be read.
        """
        items: list[Item] = []
        problems: list[Problem] = []
        images = images_below(header.root)
        folders = ImageFolders([header.root], (), header.root, config)
        dropped = 0
        for file in header.splits[split]:
            for people in _parse(file, problems):
                path = images.get(people.id, header.root / "Images" / f"{Path(people.id).name}.jpg")
                item = folders.item(path, file, people, problems)
                items += [item] if item is not None else []
                dropped += item is None
        return Listing(tuple(sorted(items, key=lambda item: item.image.as_posix())), tuple(problems), dropped)

    def read(self, item: Item, image: ImageHeader, header: DatasetHeader, config: DataConfig) -> Labels:
        """People as boxes of the chosen kind, masks and ignored ones as ignore regions."""
        people = item.content
        assert isinstance(people, _People)
        found = Collector(item.label_name, image.size, config, Wanted.of(config, None, ()), f"{people.id}: ", "entry")
        for number, entry in enumerate(people.entries, 1):
            try:
                _read_entry(entry, f"entry {number}", found)
            except EntryError as error:
                found.drop(f"entry {number}", error)
        return found.labels(len(people.entries))


def _read_entry(entry: Any, title: str, found: Collector) -> None:
    if not isinstance(entry, Mapping):
        raise EntryError(codes.BAD_ENTRY, "expected an object with tag and boxes")
    kind = _BOXES[found.config.box]
    masked = entry.get("tag") == "mask"
    given = entry.get(kind, entry.get("fbox") if masked else None)
    if not isinstance(given, list) or len(given) != 4 or not all(type(value) in (int, float) for value in given):
        raise EntryError(codes.BAD_BOX, f"{kind}: expected four numbers x, y, width, height, got {given!r:.60}")
    x, y, w, h = (float(value) for value in given)
    box = found.clip((x, y, x + w, y + h), title, quiet=found.config.box == "full")
    flags = entry.get("head_attr" if found.config.box == "head" else "extra")
    if masked or (isinstance(flags, Mapping) and flags.get("ignore") == 1):
        found.ignore(box, -1 if masked else 0)
    else:
        found.add(ReadObject(0, box), (x, y, w, h), title)
        _count_rest(entry, found)


def _count_rest(entry: Mapping[str, Any], found: Collector) -> None:
    """The person's other boxes, and what is told about it."""
    for name, key in _BOXES.items():
        found.leave_out(f"{name} boxes", int(name != found.config.box and key in entry))
    for key in ("extra", "head_attr"):
        flags = entry.get(key)
        for flag in flags if isinstance(flags, Mapping) else ():
            found.leave_out(f"values of {key} {flag}", int(flag not in _READ))


def _parse(file: Path, problems: list[Problem]) -> list[_People]:
    try:
        lines = file.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read: {error}") from None
    result = []
    name = shown(file, file.parent)
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            problems.append(Problem(name, number, codes.BAD_JSON, f"not valid JSON: {error}", "line skipped"))
            continue
        entries = value.get("gtboxes", []) if isinstance(value, dict) else None
        if entries is None or not isinstance(value.get("ID"), str) or not isinstance(entries, list):
            message = "expected an object with ID and gtboxes"
            problems.append(Problem(name, number, codes.BAD_ENTRY, message, "line skipped"))
            continue
        result.append(_People(value["ID"], tuple(entries)))
    return result
