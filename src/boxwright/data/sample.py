# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Labels and images as numpy arrays, before they become a batch. Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float32, Int64, UInt8

Severity = Literal["error", "warning", "note"]
Split = Literal["train", "val", "test"]


@dataclass(frozen=True, slots=True)
class Instances:
    """Objects of one image."""

    boxes: Float32[np.ndarray, "n 4"]  # px xyxy of the image they belong to
    labels: Int64[np.ndarray, " n"]  # compact class index

    @staticmethod
    def empty() -> "Instances":
        """No objects."""
        return Instances(np.zeros((0, 4), np.float32), np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True)
class Record:
    """One image of a split with its labels, as read from disk and fixed in memory; the pixels stay on disk."""

    image: Path
    size: tuple[int, int]  # (height, width) px after EXIF rotation
    instances: Instances  # px of that image


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding about a user's file; `code` is stable, `action` says what was done about it."""

    file: str
    line: int | None
    code: str  # "coord_out_of_range", "bad_column_count", ...
    message: str  # what, expected, got, what to do
    action: str  # "row dropped", "clipped", "image dropped", "none"
    severity: Severity = "warning"

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}, line {self.line}"
        done = "" if self.action == "none" else f" ({self.action})"
        return f"{where}: {self.message}{done}"


@dataclass(frozen=True, slots=True)
class Report:
    """What was used, fixed in memory, or refused when a split was read (spec/datasets section 8)."""

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
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class DatasetHeader:
    """What a dataset says about itself, known before any image or label is read."""

    format: str  # "yolo", "voc"
    root: Path
    source: Path  # the file or folder the user named
    names: tuple[str, ...]  # by compact class index
    class_ids: tuple[int, ...]  # the dataset's own id of each class
    splits: Mapping[Split, tuple[Path, ...]]  # folders, lists or files each split is read from
    problems: tuple[Problem, ...] = ()  # findings about the header itself; never errors, those are raised
    kpt_shape: tuple[int, int] | None = None  # keypoints per object and values per keypoint, where rows carry them
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
