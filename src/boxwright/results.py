# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""What was found in an image, and what is really there: always in pixels of the ORIGINAL image.

The letters are those of `structures`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from boxwright.errors import ShapeError
from boxwright.vocabulary import AttributeSpec, KeypointSpec

Outline = tuple[np.ndarray, ...]  # polygons (p, 2), px x and y, that together cover an object; () where unknown


@dataclass(frozen=True, slots=True)
class InstanceMask:
    """The pixels of one object, cropped to where they are: a few kilobytes where a whole image would be megabytes."""

    left: int  # px of the original image
    top: int
    pixels: Bool[np.ndarray, "h w"]

    def __post_init__(self) -> None:
        if self.pixels.ndim != 2 or self.pixels.dtype != np.bool_:
            raise ShapeError(f"InstanceMask.pixels: expected bool (h, w), got {self.pixels.dtype} {self.pixels.shape}")

    @property
    def area(self) -> int:
        """Number of pixels."""
        return int(self.pixels.sum())

    def full(self, image_size: tuple[int, int]) -> Bool[np.ndarray, "H W"]:
        """The mask in an image of (height, width) px."""
        whole = np.zeros(image_size, np.bool_)
        height, width = self.pixels.shape
        whole[self.top : self.top + height, self.left : self.left + width] = self.pixels
        return whole


@dataclass(frozen=True, slots=True)
class ImageTruth:
    """The label of a whole image, as evaluation reads it."""

    label: int


@dataclass(frozen=True, slots=True)
class Classification:
    """What a classifier says of one image."""

    scores: Float[Tensor, " C"]  # probabilities
    names: tuple[str, ...]
    image_size: tuple[int, int]  # (height, width) of the original image, px
    class_ids: tuple[int, ...] | None = None
    path: str | None = None

    def top(self, count: int = 5) -> list[tuple[str, float]]:
        """The best classes and their probabilities, best first."""
        best = self.scores.topk(min(count, len(self.names)))
        return [(self.names[i], score) for score, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)]

    def to_dicts(self) -> list[dict[str, Any]]:
        """One plain dict per class, best first: name, label, class_id and score."""
        ids = self.class_ids or tuple(range(len(self.names)))
        order = self.scores.argsort(descending=True, stable=True).tolist()
        return [{"name": self.names[i], "label": i, "class_id": ids[i], "score": float(self.scores[i])} for i in order]


@dataclass(frozen=True, slots=True)
class GroundTruth:
    """The labels of one image as evaluation reads them: px of the ORIGINAL image."""

    boxes: Float[Tensor, "N box"]  # px xyxy, or px cx cy w h and radians
    labels: Int64[Tensor, " N"]
    image_size: tuple[int, int]  # (height, width) of the original image, px
    # Regions where detections are neither right nor wrong (crowds, unlabelled parts), each of one class or (-1) of all.
    ignore: Float[Tensor, "I 4"] | None = None
    ignore_labels: Int64[Tensor, " I"] | None = None  # None: all classes everywhere
    outlines: tuple[Outline, ...] | None = None  # one per object; None where the dataset has no outlines
    keypoints: Float[Tensor, "N K 3"] | None = None  # px x, px y, visibility 0, 1 or 2
    areas: Float[Tensor, " N"] | None = None  # px^2 as the file states them; None: of the outline, else of the box
    attributes: Mapping[str, Tensor] | None = None  # (N,) int64, or (N, C_name) float; -1 is not labelled


@dataclass(frozen=True, slots=True)
class Detections:
    """What was found in one image: px of the ORIGINAL image, best first."""

    boxes: Float[Tensor, "N box"]  # px xyxy, or px cx cy w h and radians
    scores: Float[Tensor, " N"]
    labels: Int64[Tensor, " N"]  # index into names
    names: tuple[str, ...]
    image_size: tuple[int, int]  # (height, width) of the original image, px
    class_ids: tuple[int, ...] | None = None  # the dataset's own id of each class, where it differs from the index
    path: str | None = None  # where the image came from
    masks: tuple[InstanceMask, ...] | None = None  # one per detection
    keypoints: Float[Tensor, "N K 3"] | None = None  # px x, px y, visibility in [0, 1] (1 where the model gives none)
    keypoint_spec: KeypointSpec | None = None
    attributes: Mapping[str, Float[Tensor, "N values"]] | None = None  # probabilities by attribute
    attribute_specs: tuple[AttributeSpec, ...] = ()

    def __len__(self) -> int:
        return self.boxes.shape[0]

    def to_dicts(self) -> list[dict[str, Any]]:
        """One plain dict per detection: name, label, class_id, score and box (px x1, y1, x2, y2)."""
        ids = self.class_ids or tuple(range(len(self.names)))
        rows = zip(self.boxes.tolist(), self.scores.tolist(), self.labels.tolist(), strict=True)
        return [
            {"name": self.names[label], "label": label, "class_id": ids[label], "score": score, "box": box}
            for box, score, label in rows
        ]

    def to_coco(self, image_id: int | str) -> list[dict[str, Any]]:
        """COCO result rows: bbox as x, y, width, height in px; category_id is the dataset's own class id."""
        return [
            {
                "image_id": image_id,
                "category_id": row["class_id"],
                "bbox": [round(v, 3) for v in _xywh(row["box"])],
                "score": round(row["score"], 5),
            }
            for row in self.to_dicts()
        ]

    def to_supervision(self) -> Any:
        """The same as `supervision.Detections`.

        Raises:
            ImportError: the `supervision` package is not installed.
        """
        import supervision

        return supervision.Detections(
            xyxy=self.boxes.cpu().numpy().astype(np.float32).reshape(-1, 4),
            confidence=self.scores.cpu().numpy().astype(np.float32),
            class_id=self.labels.cpu().numpy().astype(int),
            data={"class_name": np.array([self.names[i] for i in self.labels.tolist()], dtype=str)},
        )


def _xywh(box: list[float]) -> list[float]:
    x1, y1, x2, y2 = box
    return [x1, y1, x2 - x1, y2 - y1]
