# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The labels of a split as columns, and a place in them. Imports no torch."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64

from boxwright.datasets.sample import Records, Split


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
class Spot:
    """Where something was found: an image, and an object of it unless -1 (a row of the split's columns)."""

    split: Split
    image: int
    object: int
    text: str
