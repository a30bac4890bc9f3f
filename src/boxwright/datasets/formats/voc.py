# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Pascal VOC folders, read and written: `Annotations/`, `JPEGImages/`, `ImageSets/Main/`.

Source: spec/datasets 4; Everingham et al. 2010, development kit.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from boxwright.datasets import codes
from boxwright.datasets.codes import Severity
from boxwright.datasets.formats.base import Item, Labels, Listing, shown
from boxwright.datasets.formats.class_list import read_class_list
from boxwright.datasets.formats.collect import DIFFICULT, Collector, EntryError, clip_entry, lost_area
from boxwright.datasets.formats.job import OBJECT_TASKS, Holds, Job, lose_ids, number
from boxwright.datasets.formats.listing import (
    IMAGE_SUFFIXES,
    LabelFolders,
    leads_outside,
    link_outside,
    list_lines,
    name_clashes,
    spellings,
)
from boxwright.datasets.formats.objects import Box, ReadObject, Remark, Wanted
from boxwright.datasets.formats.voc_xml import VocFile, VocObject, XmlError, parse_voc
from boxwright.datasets.image_header import ImageHeader
from boxwright.datasets.policy import DataConfig
from boxwright.datasets.sample import DatasetHeader, Instances, Problem, Record, Split
from boxwright.errors import DataError

_OFFSETS = {"exact": (-1, 0), "legacy": (-1, -1), "none": (0, 0)}  # added to (min, max), px
_DIGITS = 4  # of a pixel, written
_SPLITS: tuple[tuple[Split, tuple[str, ...]], ...] = (
    ("train", ("train", "trainval")),
    ("val", ("val",)),
    ("test", ("test",)),
)


@dataclass(frozen=True, slots=True)
class Voc:
    """Pascal VOC annotations."""

    name: str = "voc"
    version: int = 3

    @property
    def holds(self) -> Holds:
        """Upright boxes."""
        return dict.fromkeys(OBJECT_TASKS, frozenset())

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
        wanted = Wanted.of(config, None, ())
        found = Collector(item.label_name, image.size, config, wanted, noun="object", same="the same as")
        return _Reading(found, image.orientation, header.names).labels(parsed)

    def write(self, job: Job) -> str:
        """Writes `Annotations`, `JPEGImages`, `ImageSets/Main`, and `classes.txt` for the order of the classes.

        The folder itself is the dataset.
        """
        lose_ids(job)
        for part in job.parts:
            ids = []
            for record in part.records:
                name = job.place(record, "JPEGImages")
                ids.append(Path(name).stem)
                job.count_lost(record.instances)
                job.write(f"Annotations/{ids[-1]}.xml", _annotation(job, record, name))
            for split in part.splits:
                job.write(f"ImageSets/Main/{split}.txt", "".join(f"{line}\n" for line in ids))
        for name in ("Annotations", "JPEGImages"):
            (job.folder / name).mkdir(exist_ok=True)
        job.write("classes.txt", "".join(f"{name}\n" for name in job.header.names))
        return "."


# -- reading objects -----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Reading:
    """One annotation file while its objects are read."""

    found: Collector
    orientation: int  # EXIF, 1..8, of the image
    names: tuple[str, ...]
    leaving: int = 0  # boxes that leave the upright image but would fit the stored one

    def labels(self, file: VocFile) -> Labels:
        self._compare_size(file)
        for position, item in enumerate(file.objects, 1):
            name = f"object {position}"
            title = f"{name} ({item.name})" if item.name else name
            try:
                read = self._object(item, title)
            except EntryError as error:
                self.found.drop(title, error, item.line)
                continue
            if self.found.add(read, (read.label, read.box), title, item.line, name=name):
                self._count_rest(item)
        self.found.limit()
        if self.leaving:
            message = f"{self.leaving} boxes leave the image as its EXIF orientation turns it, but fit it unturned"
            self.found.say(codes.LABELS_UNROTATED, message)
        return self.found.labels(len(file.objects))

    def _count_rest(self, item: VocObject) -> None:
        """What an object tells beside its class and box; `Unspecified` and 0 tell nothing."""
        for name, text in item.more.items():
            self.found.leave_out(f"values of {name}", int(text not in ("", "0", "Unspecified")))
        self.found.leave_out(DIFFICULT, int(_is_difficult(item)))
        self.found.leave_out("boxes of parts", item.parts)

    def _compare_size(self, file: VocFile) -> None:
        height, width = self.found.size
        if file.width is None or file.height is None:
            return
        try:
            stated = int(float(file.height)), int(float(file.width))
        except (ValueError, OverflowError):
            stated = (-1, -1)
        if stated not in ((height, width), (0, 0)):
            message = f"size says {file.width} x {file.height} px, the upright image has {width} x {height}"
            self.found.say(codes.SIZE_MISMATCH, message, "the image's own size is used")

    def _object(self, item: VocObject, title: str) -> ReadObject:
        label = self._label(item)
        if self.found.config.skip_difficult and _is_difficult(item):
            raise EntryError(codes.DIFFICULT, "marked difficult; data.skip_difficult=false keeps it", "note")
        raw = _corners(item)
        if raw[0] == raw[2] or raw[1] == raw[3]:
            raise EntryError(codes.ZERO_AREA, "the box has zero area: " + _corner_text(raw))
        if raw[0] > raw[2] or raw[1] > raw[3]:
            message = f"corners are out of order: {_corner_text(raw)}"
            self.found.remark(title, Remark(codes.CORNERS_SWAPPED, message, "swapped"), item.line)
            raw = min(raw[0], raw[2]), min(raw[1], raw[3]), max(raw[0], raw[2]), max(raw[1], raw[3])
        return ReadObject(label, self._clip(raw, title, item.line))

    def _label(self, item: VocObject) -> int:
        if not item.name:
            raise EntryError(codes.CLASS_MISSING, "the object has no name")
        if item.name not in self.names:
            known = ", ".join(self.names[:20]) + (", ..." if len(self.names) > 20 else "")
            severity: Severity = "warning" if self.found.config.fix in ("skip", "all") else "error"
            message = f"class {item.name!r} is not one of {known}; data.fix=skip drops such objects"
            raise EntryError(codes.CLASS_UNKNOWN, message, severity)
        return self.names.index(item.name)

    def _clip(self, raw: Box, title: str, line: int) -> Box:
        low, high = _OFFSETS[self.found.config.voc_offset]
        box = raw[0] + low, raw[1] + low, raw[2] + high, raw[3] + high
        height, width = self.found.size
        sideways = self.orientation >= 5 and box[2] <= height and box[3] <= width
        self.leaving += sideways and (box[2] > width or box[3] > height)
        clipped, kept = clip_entry(box, self.found.size, f": {_corner_text(raw)}")
        if lost := lost_area(kept):
            hint = "; do the coordinates count from 0? then data.voc_offset=none" if min(raw[:2]) == 0 else ""
            remark = Remark(codes.BOX_CLIPPED, f"{lost}: {_corner_text(raw)}{hint}", "clipped")
            self.found.remark(title, remark, line)
        return clipped


def _is_difficult(item: VocObject) -> bool:
    return item.difficult not in (None, "", "0")


def _corners(item: VocObject) -> Box:
    if not item.has_box:
        raise EntryError(codes.BOX_MISSING, "there is no bndbox")
    values = []
    for corner in ("xmin", "ymin", "xmax", "ymax"):
        text = item.corners.get(corner)
        if text is None:
            raise EntryError(codes.BOX_INCOMPLETE, f"bndbox has no {corner}")
        try:
            value = float(text.replace("_", "?"))
        except ValueError:
            raise EntryError(codes.NOT_A_NUMBER, f"{corner}: expected a number, got {text[:20]!r}") from None
        if not math.isfinite(value):
            raise EntryError(codes.NOT_FINITE, f"{corner}: expected a finite number, got {text}")
        values.append(value)
    return values[0], values[1], values[2], values[3]


def _corner_text(raw: Box) -> str:
    return "xmin {:g}, ymin {:g}, xmax {:g}, ymax {:g}".format(*raw)


# -- writing objects -----------------------------------------------------------------------------------------------


def _annotation(job: Job, record: Record, name: str) -> str:
    height, width = record.size
    lines = [
        "<annotation>",
        "\t<folder>JPEGImages</folder>",
        f"\t<filename>{escape(name)}</filename>",
        f"\t<size><width>{width}</width><height>{height}</height><depth>3</depth></size>",
    ]
    for label, box in zip(record.instances.labels.tolist(), record.instances.boxes.tolist(), strict=True):
        x1, y1, x2, y2 = box
        corners = (("xmin", x1 + 1), ("ymin", y1 + 1), ("xmax", x2), ("ymax", y2))  # 1-based, inclusive
        texts = "".join(f"<{tag}>{number(value, _DIGITS)}</{tag}>" for tag, value in corners)
        lines += [
            "\t<object>",
            f"\t\t<name>{escape(job.header.names[label])}</name>",
            "\t\t<pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult>",
            f"\t\t<bndbox>{texts}</bndbox>",
            "\t</object>",
        ]
    return "\n".join([*lines, "</annotation>", ""])


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
