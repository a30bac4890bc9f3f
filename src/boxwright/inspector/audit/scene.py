# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""What checks look at: the labels of a split as columns, and what they answer with. Imports no torch."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Float64, Int64

from boxwright.data.sample import Records, Report, Severity, Split

if TYPE_CHECKING:
    from boxwright.inspector.audit.images import Pictures
    from boxwright.inspector.audit.learnable import Learnable
    from boxwright.inspector.audit.pairs import Pairs

SHOWN = 10  # examples of a finding

Group = Literal["config", "files", "images", "labels", "splits", "balance", "learning"]
GROUPS: tuple[Group, ...] = ("config", "files", "images", "labels", "splits", "balance", "learning")


@dataclass(frozen=True, slots=True)
class SplitLabels:
    """All labels of a split as columns: I images, N objects in the order of images. Boxes are px of their image."""

    split: Split
    names: tuple[str, ...]
    images: tuple[Path, ...]
    sizes: Int64[np.ndarray, "I 2"]  # (height, width)
    boxes: Float64[np.ndarray, "N 4"]  # xyxy
    labels: Int64[np.ndarray, " N"]
    image: Int64[np.ndarray, " N"]  # index of each object's image, ascending
    corners: Float64[np.ndarray, "N 4 2"] | None = None  # of oriented objects
    image_labels: Int64[np.ndarray, " I"] | None = None  # where images have a class of their own

    @staticmethod
    def of(records: Records) -> "SplitLabels":
        """The columns of a split that was read."""
        held = records.records
        parts = [record.instances for record in held]
        counts = np.fromiter((len(part) for part in parts), np.int64, len(parts))
        oriented = bool(counts.sum()) and all(part.corners is not None for part in parts if len(part))
        classes = [record.image_label for record in held]
        return SplitLabels(
            split=records.split,
            names=records.header.names,
            images=tuple(record.image for record in held),
            sizes=np.array([record.size for record in held], np.int64).reshape(-1, 2),
            boxes=np.concatenate([np.zeros((0, 4)), *(part.boxes for part in parts)]).astype(np.float64),
            labels=np.concatenate([np.zeros(0, np.int64), *(part.labels for part in parts)]),
            image=np.repeat(np.arange(len(held)), counts),
            corners=np.concatenate([part.corners for part in parts if part.corners is not None]).astype(np.float64)
            if oriented
            else None,
            image_labels=np.array(classes, np.int64) if classes and None not in classes else None,
        )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def per_image(self) -> Int64[np.ndarray, " I"]:
        """Objects of each image."""
        counts: np.ndarray = np.bincount(self.image, minlength=len(self.images))
        return counts

    @property
    def class_counts(self) -> Int64[np.ndarray, " C"]:
        """Objects of each class, or images where images have classes."""
        labels = self.labels if self.image_labels is None else self.image_labels
        counts: np.ndarray = np.bincount(labels, minlength=len(self.names))
        return counts

    @property
    def wh(self) -> Float64[np.ndarray, "N 2"]:
        """Width and height, px; of oriented objects along their own sides."""
        if self.corners is None:
            upright: np.ndarray = self.boxes[:, 2:] - self.boxes[:, :2]
            return upright
        edges = np.diff(self.corners[:, :3], axis=1)
        sides: np.ndarray = np.hypot(edges[..., 0], edges[..., 1])
        return sides

    @property
    def relative(self) -> Float64[np.ndarray, "N 4"]:
        """Boxes as parts of their image."""
        parts: np.ndarray = self.boxes / self.sizes[self.image][:, [1, 0, 1, 0]]
        return parts

    def says(self, row: int) -> str:
        """An object in words."""
        x1, y1, x2, y2 = self.boxes[row].tolist()
        return f"{self.names[self.labels[row]]} at x {x1:.0f}..{x2:.0f}, y {y1:.0f}..{y2:.0f}"


@dataclass(frozen=True, slots=True)
class RowKinds:
    """What the rows of some label files are, of a dataset that does not say what it is made for."""

    files: int  # looked at
    boxes: int  # rows
    outlines: int  # rows
    examples: tuple[str, ...]  # files with outlines


@dataclass(frozen=True, slots=True)
class Audited:
    """Everything checks may look at."""

    names: tuple[str, ...]
    root: Path
    splits: Mapping[Split, SplitLabels]
    pairs: Mapping[Split, "Pairs"] = field(default_factory=dict)  # of boxes that overlap almost wholly
    learnable: Mapping[Split, "Learnable"] = field(default_factory=dict)
    pictures: Mapping[Split, "Pictures"] = field(default_factory=dict)
    reports: Mapping[Split, Report] = field(default_factory=dict)  # of the readers
    row_kinds: Mapping[Split, "RowKinds"] = field(default_factory=dict)  # where label files hold rows of several kinds


@dataclass(frozen=True, slots=True)
class Spot:
    """Where something was found: an image, and an object of it unless -1 (a row of the split's columns)."""

    split: Split
    image: int
    object: int
    text: str


@dataclass(frozen=True, slots=True)
class Hit:
    """What a check found; `count` cases, of which some are shown."""

    splits: tuple[Split, ...]
    count: int
    message: str
    spots: tuple[Spot, ...] = ()
    severity: Severity | None = None  # None: that of the check


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing an audit looks for; the page docs/audit.md is made of these."""

    code: str
    group: Group
    severity: Severity
    what: str  # one line
    example: str
    fix: str
    find: Callable[[Audited], Iterable[Hit]] | None = None  # None: the readers of datasets report it


@dataclass(frozen=True, slots=True)
class Example:
    """One case, as a person finds it."""

    file: str
    line: int | None
    text: str

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}, line {self.line}"
        return f"{where}: {self.text}" if self.text else where


@dataclass(frozen=True, slots=True)
class Finding:
    """One kind of fault or oddity in one split, or between splits; `code` is stable and explained in docs/audit.md."""

    code: str
    group: Group
    severity: Severity
    splits: tuple[str, ...]  # () for the dataset as a whole
    count: int
    message: str
    fix: str
    examples: tuple[Example, ...] = ()


def object_spots(labels: SplitLabels, rows: Sequence[int] | np.ndarray, texts: Sequence[str] = ()) -> tuple[Spot, ...]:
    """The first few objects, in words."""
    shown = [int(row) for row in rows[:SHOWN]]
    more = [*texts[:SHOWN], *[""] * (len(shown) - len(texts))]
    return tuple(
        Spot(labels.split, int(labels.image[row]), row, f"{labels.says(row)}{': ' if text else ''}{text}")
        for row, text in zip(shown, more, strict=True)
    )


def image_spots(labels: SplitLabels, rows: Sequence[int] | np.ndarray, texts: Sequence[str] = ()) -> tuple[Spot, ...]:
    """The first few images."""
    shown = [int(row) for row in rows[:SHOWN]]
    more = [*texts[:SHOWN], *[""] * (len(shown) - len(texts))]
    return tuple(Spot(labels.split, row, -1, text) for row, text in zip(shown, more, strict=True))


def counted(count: int, one: str, many: str = "") -> str:
    """A number and its noun.

    >>> counted(1, "box", "boxes"), counted(2, "object")
    ('1 box', '2 objects')
    """
    return f"{count} {one if count == 1 else many or one + 's'}"


def share(part: int, whole: int) -> str:
    """A part and what it is of.

    >>> share(1, 3), share(1, 5000)
    ('1 of 3 (33 %)', '1 of 5000 (0.02 %)')
    """
    percent = 100 * part / max(whole, 1)
    return f"{part} of {whole} ({percent:.{0 if percent >= 10 or not part else 2 if percent < 0.1 else 1}f} %)"
