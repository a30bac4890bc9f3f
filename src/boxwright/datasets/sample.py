# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Labels and images as numpy arrays, before they become a batch. Imports no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8

from boxwright.datasets.codes import Code, Severity
from boxwright.vocabulary import AttributeSpec, KeypointSpec, TaskName

Split = Literal["train", "val", "test"]


Polygons = tuple[Float32[np.ndarray, "_ 2"], ...]  # parts of one object's outline, px x and y; () where it has none


@dataclass(frozen=True, slots=True)
class Instances:
    """Objects of one image, px of the image they belong to. What a dataset does not tell is None.

    Points and outlines are not clipped to the image; boxes are.
    """

    boxes: Float32[np.ndarray, "n 4"]  # px xyxy; of oriented objects, around the corners
    labels: Int64[np.ndarray, " n"]  # compact class index
    polygons: tuple[Polygons, ...] | None = None  # one entry per object
    corners: Float32[np.ndarray, "n 4 2"] | None = None  # oriented boxes: px x and y in order around the object
    keypoints: Float32[np.ndarray, "n K 3"] | None = None  # px x, px y, visibility 0 (unlabelled: x = y = 0), 1 or 2
    attributes: Mapping[str, np.ndarray] | None = None  # (n,) int64, or (n, C_name) float32; -1 is not labelled
    weights: Float32[np.ndarray, " n"] | None = None  # factor on what each object contributes to the loss
    areas: Float32[np.ndarray, " n"] | None = None  # px^2 as the file states them
    # Regions where nothing is known (crowds): no background loss, no false positives. Not objects: not counted.
    ignore: Float32[np.ndarray, "i 4"] | None = None  # px xyxy
    ignore_labels: Int64[np.ndarray, " i"] | None = None  # class of each region, or -1 for all; None: all
    # Shape of each region, () where it is its box. Only as read: what moves or cuts regions leaves their boxes.
    ignore_outlines: tuple[Polygons, ...] | None = None

    @staticmethod
    def empty() -> "Instances":
        """No objects."""
        return Instances(np.zeros((0, 4), np.float32), np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: Int64[np.ndarray, " k"] | Bool[np.ndarray, " n"]) -> "Instances":
        """Some objects, by index or by mask; the ignore regions stay."""
        index = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
        taken: dict[str, Any] = {name: part[index] for name, part in self._columns().items()}
        if self.polygons is not None:
            taken["polygons"] = tuple(self.polygons[row] for row in index.tolist())
        if self.attributes is not None:
            taken["attributes"] = {name: part[index] for name, part in self.attributes.items()}
        return replace(self, **taken)

    def _columns(self) -> dict[str, np.ndarray]:
        names = ("boxes", "labels", "corners", "keypoints", "weights", "areas")
        return {name: part for name in names if (part := getattr(self, name)) is not None}


def join_instances(parts: Sequence[Instances]) -> Instances:
    """The objects and ignore regions of several, one after the other; all must tell the same things.

    A part without objects may lack what others tell.
    """
    filled = [part for part in parts if len(part)] or list(parts[:1]) or [Instances.empty()]
    first = filled[0]
    joined: dict[str, Any] = {
        name: np.concatenate([part._columns()[name] for part in filled]) for name in first._columns()
    }
    if first.polygons is not None:
        joined["polygons"] = tuple(outline for part in filled for outline in part.polygons or ())
    if first.attributes is not None:
        joined["attributes"] = {
            name: np.concatenate([(part.attributes or {})[name] for part in filled]) for name in first.attributes
        }
    regions = [part for part in parts if part.ignore is not None]
    if regions:
        labels = [
            np.full(len(part.ignore), -1, np.int64) if part.ignore_labels is None else part.ignore_labels
            for part in regions
            if part.ignore is not None
        ]
        joined["ignore"] = np.concatenate([part.ignore for part in regions if part.ignore is not None])
        joined["ignore_labels"] = np.concatenate(labels)
        joined["ignore_outlines"] = _join_region_outlines(regions)
    return replace(first, **joined)


def _join_region_outlines(parts: Sequence[Instances]) -> tuple[Polygons, ...] | None:
    if all(part.ignore_outlines is None for part in parts):
        return None
    outlines: list[Polygons] = []
    for part in parts:
        none: tuple[Polygons, ...] = ((),) * (0 if part.ignore is None else len(part.ignore))
        outlines += none if part.ignore_outlines is None else part.ignore_outlines
    return tuple(outlines)


@dataclass(frozen=True, slots=True)
class Record:
    """One image of a split with its labels, as read from disk and fixed in memory; the pixels stay on disk."""

    image: Path
    size: tuple[int, int]  # (height, width) px after EXIF rotation
    instances: Instances  # px of that image
    image_label: int | None = None  # class of the whole image, for classification


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding about a user's file; `code` is stable, `action` says what was done about it."""

    file: str
    line: int | None
    code: Code
    message: str  # what, expected, got, what to do
    action: str  # "row dropped", "clipped", "image dropped", "none"
    severity: Severity = "warning"

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}, line {self.line}"
        done = "" if self.action == "none" else f" ({self.action})"
        return f"{where}: {self.message}{done}"


@dataclass(frozen=True, slots=True)
class Report:
    """What was used, fixed in memory, or refused when a split was read (spec/datasets 8)."""

    images: int = 0
    labels_found: int = 0
    missing: int = 0
    empty: int = 0
    corrupt: int = 0
    rows: int = 0
    rows_dropped: int = 0
    rows_fixed: int = 0
    duplicates: int = 0
    per_class_counts: Mapping[str, int] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)  # what labels tell and are not read for, counted
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class DatasetHeader:
    """What a dataset says about itself, known before any image or label is read."""

    format: str  # "yolo", "voc", "coco", "dota", "folder"
    root: Path
    source: Path  # the file or folder the user named
    names: tuple[str, ...]  # by compact class index
    class_ids: tuple[int, ...]  # the dataset's own id of each class
    splits: Mapping[Split, tuple[Path, ...]]  # folders, lists or files each split is read from
    problems: tuple[Problem, ...] = ()  # findings about the header itself; never errors, those are raised
    task: TaskName | None = None  # what its labels are made for, where it says so; see `DataConfig.task`
    keypoints: KeypointSpec | None = None  # where labels carry keypoints
    attributes: tuple[AttributeSpec, ...] = ()  # where labels carry named extra answers
    exclusive: bool | None = None  # every object has exactly one of the classes; None: the dataset does not say


@dataclass(frozen=True, slots=True)
class Records:
    """One split, read and checked."""

    header: DatasetHeader
    split: Split
    records: tuple[Record, ...]
    report: Report


@dataclass(frozen=True, slots=True)
class Sample:
    """One image ready for training or evaluation, with its objects in its own pixels."""

    image: UInt8[np.ndarray, "h w 3"]  # RGB
    instances: Instances
    index: int  # position in the dataset
    image_label: int | None = None  # class of the whole image, for classification
