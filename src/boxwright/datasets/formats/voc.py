# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Pascal VOC folders: `Annotations/`, `JPEGImages/`, `ImageSets/Main/`.

Source: spec/datasets 4; Everingham et al. 2010, development kit.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from boxwright.datasets import codes
from boxwright.datasets.codes import Code, Severity
from boxwright.datasets.formats.base import Item, Labels, Listing, shown
from boxwright.datasets.formats.class_list import read_class_list
from boxwright.datasets.formats.collect import DIFFICULT
from boxwright.datasets.formats.listing import (
    IMAGE_SUFFIXES,
    LabelFolders,
    leads_outside,
    link_outside,
    list_lines,
    name_clashes,
    spellings,
)
from boxwright.datasets.formats.objects import MAX_AREA_LOST, ReadObject, Wanted, instances_of
from boxwright.datasets.formats.voc_xml import VocFile, VocObject, XmlError, parse_voc
from boxwright.datasets.image_header import ImageHeader
from boxwright.datasets.policy import DataConfig
from boxwright.datasets.sample import DatasetHeader, Instances, Problem, Split
from boxwright.errors import DataError

_OFFSETS = {"exact": (-1, 0), "legacy": (-1, -1), "none": (0, 0)}  # added to (min, max), px
_SPLITS: tuple[tuple[Split, tuple[str, ...]], ...] = (
    ("train", ("train", "trainval")),
    ("val", ("val",)),
    ("test", ("test",)),
)
_Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Voc:
    """Reader of Pascal VOC annotations."""

    name: str = "voc"
    version: int = 2

    def detect(self, source: Path) -> bool:
        """A folder with `Annotations` and `ImageSets` or `JPEGImages`."""
        return (source / "Annotations").is_dir() and any((source / n).is_dir() for n in ("ImageSets", "JPEGImages"))

    def header(self, source: Path, names: Sequence[str] | None) -> DatasetHeader:
        """Splits from the lists in ImageSets/Main; classes from `names`, a classes.txt, or sorted from all annotations.

        Raises:
            DataError: a folder or list is missing, or no annotation names a class.
        """
        lists = source / "ImageSets" / "Main"
        splits: dict[Split, tuple[Path, ...]] = {}
        problems: list[Problem] = []
        for split, choices in _SPLITS:
            file = next((lists / f"{name}.txt" for name in choices if (lists / f"{name}.txt").is_file()), None)
            if file is not None:
                splits[split] = (file,)
        for split in ("train", "val"):
            if split not in splits:
                raise DataError(
                    f"{lists / split}.txt: missing; it lists the images of the {split} split, one id a line"
                )
        if splits["train"][0].stem == "trainval":
            message = "there is no train.txt; trainval.txt is used to train and may hold the val images"
            problems.append(Problem("ImageSets/Main", None, codes.TRAINVAL_USED, message, "none"))
        chosen = tuple(names or read_class_list(source) or ()) or _class_names(source)
        if not chosen:
            raise DataError(
                f"{source / 'Annotations'}: no object with a name in any annotation, so there are no classes"
            )
        return DatasetHeader("voc", source, source, chosen, tuple(range(len(chosen))), splits, tuple(problems))

    def items(self, header: DatasetHeader, split: Split, config: DataConfig) -> Listing:
        """Images of an id list, each with its annotation file.

        Raises:
            DataError: the list cannot be read.
        """
        images_folder, labels_folder = header.root / "JPEGImages", header.root / "Annotations"
        files = _image_files(images_folder)
        images: dict[str, Path] = {}
        for path in files:
            images.setdefault(path.stem, path)
        labels = LabelFolders(".xml")
        ids, problems = _read_ids(header.splits[split][0], header.root, images)
        items, dropped = [], 0
        for image_id in ids:
            found = (images[form] for form in spellings(image_id) if form in images)
            image = next(found, images_folder / f"{image_id}.jpg")
            if not config.follow_links and leads_outside(image, (header.root, images_folder)):
                problems.append(link_outside(shown(image, header.root)))
                dropped += 1
                continue
            label_name = shown(labels_folder / f"{image_id}.xml", header.root)
            items.append(Item(image, labels.find(labels_folder, image_id), shown(image, header.root), label_name))
        if split == next(iter(header.splits)):  # once for the whole dataset: the folders are shared
            problems += name_clashes(files, header.root)
            problems += _orphans(labels.names(labels_folder), frozenset(images))
        return Listing(tuple(items), tuple(problems), dropped)

    def read(self, item: Item, image: ImageHeader, header: DatasetHeader, config: DataConfig) -> Labels:
        """Objects of the annotation file as boxes; a missing file makes the image background."""
        if item.label is None:
            return Labels(Instances.empty(), "missing")
        try:
            parsed = parse_voc(item.label)
        except XmlError as error:
            severity: Severity = "error" if error.code == codes.XML_ENTITIES else "warning"
            problem = Problem(item.label_name, error.line, error.code, str(error), "image dropped", severity)
            return Labels(Instances.empty(), "unreadable", problems=(problem,))
        except OSError as error:
            message = f"cannot be read: {error.strerror}"
            problem = Problem(item.label_name, None, codes.LABEL_UNREADABLE, message, "image dropped")
            return Labels(Instances.empty(), "unreadable", problems=(problem,))
        return _Reading(item.label_name, image, header, config).labels(parsed)


# -- objects -------------------------------------------------------------------------------------------------------


class _ObjectError(Exception):
    def __init__(self, code: Code, message: str, severity: Severity = "warning"):
        super().__init__(message)
        self.code, self.severity = code, severity


@dataclass(slots=True)
class _Reading:
    """One annotation file while its objects are read."""

    name: str
    image: ImageHeader
    header: DatasetHeader
    config: DataConfig
    problems: list[Problem] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    leaving: int = 0  # boxes that leave the upright image but would fit the stored one

    def labels(self, file: VocFile) -> Labels:
        self._compare_size(file)
        seen: dict[tuple[int, _Box], int] = {}
        dropped = duplicates = fixed = 0
        for number, item in enumerate(file.objects, 1):
            before = len(self.problems)
            try:
                key = self._object(item, number)
            except _ObjectError as error:
                self._say(item.line, error.code, f"{_title(item, number)}: {error}", "object dropped", error.severity)
                dropped += 1
                continue
            if key in seen:
                message = f"{_title(item, number)}: the same as object {seen[key]}"
                self._say(item.line, codes.DUPLICATE_ROW, message, "object dropped")
                duplicates += 1
                continue
            seen[key] = number
            self._count_rest(item)
            fixed += len(self.problems) > before
        kept, limit = list(seen), self.config.max_objects
        if len(kept) > limit:
            message = f"{len(kept)} objects; only the first {limit} are used (data.max_objects)"
            self._say(None, codes.TOO_MANY_OBJECTS, message, f"{len(kept) - limit} objects dropped")
            dropped += len(kept) - limit
        if self.leaving:
            message = f"{self.leaving} boxes leave the image as its EXIF orientation turns it, but fit it unturned"
            self._say(None, codes.LABELS_UNROTATED, message, "none")
        return Labels(
            _instances(kept[:limit], self.config), "found" if file.objects else "empty", len(file.objects), dropped,
            fixed, duplicates, tuple(self.problems), left_out=dict(self.left_out),
        )  # fmt: skip

    def _say(self, line: int | None, code: Code, message: str, action: str, severity: Severity = "warning") -> None:
        self.problems.append(Problem(self.name, line, code, message, action, severity))

    def _count_rest(self, item: VocObject) -> None:
        """What an object tells beside its class and box; `Unspecified` and 0 tell nothing."""
        told = [f"values of {name}" for name, text in item.more.items() if text not in ("", "0", "Unspecified")]
        told += [DIFFICULT] if item.difficult not in (None, "", "0") else []
        told += ["boxes of parts"] * item.parts
        self.left_out.update(told)

    def _compare_size(self, file: VocFile) -> None:
        height, width = self.image.size
        if file.width is None or file.height is None:
            return
        try:
            said = int(float(file.height)), int(float(file.width))
        except (ValueError, OverflowError):
            said = (-1, -1)
        if said not in ((height, width), (0, 0)):
            message = f"size says {file.width} x {file.height} px, the upright image has {width} x {height}"
            self._say(None, codes.SIZE_MISMATCH, message, "the image's own size is used")

    def _object(self, item: VocObject, number: int) -> tuple[int, _Box]:
        label = self._label(item)
        if self.config.skip_difficult and item.difficult not in (None, "", "0"):
            raise _ObjectError(codes.DIFFICULT, "marked difficult; data.skip_difficult=false keeps it", "note")
        raw = _corners(item)
        if raw[0] == raw[2] or raw[1] == raw[3]:
            raise _ObjectError(codes.ZERO_AREA, "the box has zero area: " + _corner_text(raw))
        if raw[0] > raw[2] or raw[1] > raw[3]:
            message = f"{_title(item, number)}: corners are out of order: {_corner_text(raw)}"
            self._say(item.line, codes.CORNERS_SWAPPED, message, "swapped")
            raw = min(raw[0], raw[2]), min(raw[1], raw[3]), max(raw[0], raw[2]), max(raw[1], raw[3])
        return label, self._clip(raw, item, number)

    def _label(self, item: VocObject) -> int:
        if not item.name:
            raise _ObjectError(codes.CLASS_MISSING, "the object has no name")
        if item.name not in self.header.names:
            known = ", ".join(self.header.names[:20]) + (", ..." if len(self.header.names) > 20 else "")
            severity: Severity = "warning" if self.config.fix in ("skip", "all") else "error"
            message = f"class {item.name!r} is not one of {known}; data.fix=skip drops such objects"
            raise _ObjectError(codes.CLASS_UNKNOWN, message, severity)
        return self.header.names.index(item.name)

    def _clip(self, raw: _Box, item: VocObject, number: int) -> _Box:
        low, high = _OFFSETS[self.config.voc_offset]
        x1, y1, x2, y2 = raw[0] + low, raw[1] + low, raw[2] + high, raw[3] + high
        height, width = self.image.size
        area = (x2 - x1) * (y2 - y1)
        box = max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))
        kept = max(box[2] - box[0], 0) * max(box[3] - box[1], 0)
        if (x2 > width or y2 > height) and x2 <= height and y2 <= width and self.image.orientation >= 5:
            self.leaving += 1
        if kept <= 0:
            raise _ObjectError(codes.ZERO_AREA, f"nothing of the box lies inside the image: {_corner_text(raw)}")
        if kept < (1 - MAX_AREA_LOST) * area:
            hint = "; do the coordinates count from 0? then data.voc_offset=none" if min(raw[:2]) == 0 else ""
            lost = f"{(1 - kept / area) * 100:.0f} % of the box lies outside the image: {_corner_text(raw)}{hint}"
            self._say(item.line, codes.BOX_CLIPPED, f"{_title(item, number)}: {lost}", "clipped")
        return box


def _title(item: VocObject, number: int) -> str:
    return f"object {number} ({item.name})" if item.name else f"object {number}"


def _corners(item: VocObject) -> _Box:
    if not item.has_box:
        raise _ObjectError(codes.BOX_MISSING, "there is no bndbox")
    values = []
    for corner in ("xmin", "ymin", "xmax", "ymax"):
        text = item.corners.get(corner)
        if text is None:
            raise _ObjectError(codes.BOX_INCOMPLETE, f"bndbox has no {corner}")
        try:
            value = float(text.replace("_", "?"))
        except ValueError:
            raise _ObjectError(codes.NOT_A_NUMBER, f"{corner}: expected a number, got {text[:20]!r}") from None
        if not math.isfinite(value):
            raise _ObjectError(codes.NOT_FINITE, f"{corner}: expected a finite number, got {text}")
        values.append(value)
    return values[0], values[1], values[2], values[3]


def _corner_text(raw: _Box) -> str:
    return "xmin {:g}, ymin {:g}, xmax {:g}, ymax {:g}".format(*raw)


def _instances(kept: list[tuple[int, _Box]], config: DataConfig) -> Instances:
    return instances_of([ReadObject(label, box) for label, box in kept], Wanted.of(config, None, ()))


# -- folders and lists ---------------------------------------------------------------------------------------------


def _class_names(source: Path) -> tuple[str, ...]:
    names: set[str] = set()
    for file in sorted((source / "Annotations").glob("*.xml")):
        try:
            names.update(item.name for item in parse_voc(file).objects if item.name)
        except (XmlError, OSError):
            continue  # named with its reason when the split that uses it is read
    return tuple(sorted(names))


def _image_files(folder: Path) -> list[Path]:
    """Image files, .jpg first, so that of several files with one id the usual one is used."""
    if not folder.is_dir():
        return []
    files = [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES]
    return sorted(files, key=lambda path: (path.suffix.lower() != ".jpg", path.name))


def _read_ids(file: Path, root: Path, images: dict[str, Path]) -> tuple[list[str], list[Problem]]:
    ids: dict[str, int] = {}
    problems: list[Problem] = []
    for line, raw in enumerate(list_lines(file), 1):
        entry = raw.strip()
        words = entry.split()
        if entry not in images and len(words) == 2 and words[1] in ("-1", "0", "1"):
            entry = words[0]  # the lists of one class say 1, 0 or -1 behind the id
        if not entry:
            continue
        if "/" in entry or "\\" in entry or "\0" in entry:
            message = f"{entry!r}: expected the id of an image in JPEGImages, not a path"
            problems.append(Problem(shown(file, root), line, codes.BAD_PATH, message, "line dropped"))
        elif entry in ids:
            message = f"{entry} is already listed in line {ids[entry]}"
            problems.append(Problem(shown(file, root), line, codes.DUPLICATE_IMAGE, message, "line dropped"))
        else:
            ids[entry] = line
    return sorted(ids), problems


def _orphans(names: frozenset[str], stems: frozenset[str]) -> list[Problem]:
    message = "there is no image of this name in JPEGImages"
    return [
        Problem(f"Annotations/{name}", None, codes.ORPHAN_LABEL, message, "ignored")
        for name in sorted(names)
        if stems.isdisjoint(spellings(name[:-4]))
    ]
