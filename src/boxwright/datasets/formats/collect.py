# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The labels of one image while its entries are read one by one: what is kept, ignored, mended, dropped, and why."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from boxwright.datasets import codes
from boxwright.datasets.codes import Code, Severity
from boxwright.datasets.formats.base import Labels
from boxwright.datasets.formats.objects import MAX_AREA_LOST, Box, ReadObject, Remark, Wanted, clip_box, instances_of
from boxwright.datasets.policy import DataConfig
from boxwright.datasets.sample import Problem

DIFFICULT = "difficult flags (their objects became ordinary ones)"  # left out where such objects are kept


_Entry = tuple[str, int | None]  # title and line


class EntryError(Exception):
    """An entry of a label file cannot be used: a row, an object, an annotation."""

    def __init__(self, code: Code, message: str, severity: Severity = "warning"):
        super().__init__(message)
        self.code, self.severity = code, severity


def clip_entry(box: Box, size: tuple[int, int], written: str = "") -> tuple[Box, float]:
    """The part of a box, px xyxy, inside an image of `size` (height, width) px, and the share of its area there.

    `written` says behind the message how the file gives the box.

    Raises:
        EntryError: no area, also after rounding to the float32 of `Instances`, or nothing inside the image.
    """
    if box[2] <= box[0] or box[3] <= box[1]:
        width, height = box[2] - box[0], box[3] - box[1]
        raise EntryError(codes.ZERO_AREA, f"the box has zero area: width {width:g}, height {height:g}{written}")
    clipped, kept = clip_box(box, size)
    if kept <= 0:
        raise EntryError(codes.ZERO_AREA, f"nothing of the box lies inside the image{written}")
    x1, y1, x2, y2 = np.array(clipped, np.float32).tolist()
    if x2 <= x1 or y2 <= y1:
        raise EntryError(codes.ZERO_AREA, f"the box has zero area in pixels of its image{written}")
    return clipped, kept


def lost_area(kept: float) -> str | None:
    """What to say of a box of which the share `kept` lies inside the image; None where it is only rounding."""
    if kept >= 1 - MAX_AREA_LOST:
        return None
    return f"{(1 - kept) * 100:.0f} % of the box lies outside the image"


@dataclass(slots=True)
class Collector:
    """Gathers the entries of one image. `title` names an entry in messages, `line` where it stands in the file.

    An entry counts as mended when something of it was mended and its object is used.
    """

    file: str  # as problems name it
    size: tuple[int, int]  # (height, width) px of the upright image
    config: DataConfig
    wanted: Wanted
    where: str = ""  # the image, for files that hold the labels of many
    noun: str = "row"  # what an entry is called
    same: str = "the same object as"  # how an entry is called that repeats another
    problems: list[Problem] = field(default_factory=list)
    _objects: list[ReadObject] = field(default_factory=list)
    _entries: list[_Entry] = field(default_factory=list)  # of each object
    _seen: dict[tuple[object, ...], str] = field(default_factory=dict)
    _ignore: list[Box] = field(default_factory=list)
    _ignore_labels: list[int] = field(default_factory=list)
    _ignore_outlines: list[tuple[np.ndarray, ...]] = field(default_factory=list)
    _left_out: Counter[str] = field(default_factory=Counter)
    _mended: set[_Entry] = field(default_factory=set)
    _dropped: int = 0
    _duplicates: int = 0

    def say(
        self, code: Code, message: str, action: str = "none", severity: Severity = "warning", line: int | None = None
    ) -> None:
        """A finding."""
        self.problems.append(Problem(self.file, line, code, self.where + message, action, severity))

    def remark(self, title: str, remark: Remark, line: int | None = None) -> None:
        """A finding about an entry, which counts as mended where something was done."""
        if remark.action != "none":
            self._mended.add((title, line))
        message = f"{title}: {remark.message}" if title else remark.message
        self.say(remark.code, message, remark.action, remark.severity, line)

    def drop(self, title: str, error: EntryError, line: int | None = None) -> None:
        """An entry that cannot be used."""
        text = f"{title}: {error}" if title else str(error)
        self.say(error.code, text, f"{self.noun} dropped", error.severity, line)
        self._dropped += 1
        self._mended.discard((title, line))

    def add(
        self, item: ReadObject, key: tuple[object, ...], title: str, line: int | None = None, name: str = ""
    ) -> bool:
        """An object; the second of two with one key is dropped, and False returned.

        `name` is what messages about later entries call this one; by default its title, or else its line.
        """
        if key in self._seen:
            message = f"{title}: " if title else ""
            message += f"{self.same} {self._seen[key]}"
            self.say(codes.DUPLICATE_ROW, message, f"{self.noun} dropped", "warning", line)
            self._duplicates += 1
            self._mended.discard((title, line))
            return False
        self._seen[key] = name or title or f"in line {line}"
        self._objects.append(item)
        self._entries.append((title, line))
        return True

    def ignore(self, box: Box, label: int, outline: tuple[np.ndarray, ...] = ()) -> None:
        """A region where nothing is known, the box where it has no outline; `label` -1 for every class."""
        self._ignore.append(box)
        self._ignore_labels.append(label)
        self._ignore_outlines.append(outline)

    def leave_out(self, what: str, count: int = 1) -> None:
        """Counts something that the file tells and the labels of an image have no place for."""
        if count:
            self._left_out[what] += count

    def clip(self, box: Box, title: str, *, quiet: bool = False, line: int | None = None) -> Box:
        """The part of a box inside the image; cutting much of it is said, unless `quiet`.

        Raises:
            EntryError: no area, or nothing inside the image.
        """
        clipped, kept = clip_entry(box, self.size)
        if not quiet and (lost := lost_area(kept)):
            self.remark(title, Remark(codes.BOX_CLIPPED, lost, "clipped"), line)
        return clipped

    def limit(self) -> list[ReadObject]:
        """The objects that are used: no more than `data.max_objects`; what is over is dropped now."""
        limit = self.config.max_objects
        over = len(self._objects) - limit
        if over > 0:
            message = f"{len(self._objects)} objects; only the first {limit} are used (data.max_objects)"
            self.say(codes.TOO_MANY_OBJECTS, message, f"{over} {self.noun}s dropped")
            self._dropped += over
            self._mended.difference_update(self._entries[limit:])
            del self._objects[limit:], self._entries[limit:]
        return self._objects

    def labels(self, entries: int) -> Labels:
        """Everything, as the labels of the image; `entries` is how many the file has."""
        instances = instances_of(
            self.limit(), self.wanted, ignore=self._ignore or None, ignore_labels=self._ignore_labels,
            ignore_outlines=self._ignore_outlines,
        )  # fmt: skip
        return Labels(
            instances, "found" if entries else "empty", entries, self._dropped, len(self._mended), self._duplicates,
            tuple(self.problems), left_out=dict(self._left_out),
        )  # fmt: skip
