# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Scene: what was found in one image and what is really there, as numpy arrays on the host."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float32, Float64, Int64

from boxwright.results import Detections, GroundTruth


def _no_boxes() -> np.ndarray:
    return np.zeros((0, 4), np.float32)


def _no_labels() -> np.ndarray:
    return np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class Scene:
    """Detections (best first) and labels of one image, px of the original image."""

    index: int  # position in the dataset: the order that results are computed in, whatever rank saw the image
    boxes: Float32[np.ndarray, "n 4"]
    scores: Float32[np.ndarray, " n"]
    labels: Int64[np.ndarray, " n"]
    true_boxes: Float32[np.ndarray, "m 4"]
    true_labels: Int64[np.ndarray, " m"]
    image_size: tuple[int, int]
    ignore_boxes: Float32[np.ndarray, "i 4"] = field(
        default_factory=_no_boxes
    )  # detections inside are neither right nor wrong
    ignore_labels: Int64[np.ndarray, " i"] = field(
        default_factory=_no_labels
    )  # class of each region, -1 for all classes

    @staticmethod
    def of(index: int, found: Detections, truth: GroundTruth) -> "Scene":
        """The scene of one image; detections are put best first (stable)."""
        scores = found.scores.detach().float().cpu().numpy()
        order = np.argsort(-scores, kind="stable")
        regions, classes = _regions(truth)
        return Scene(
            index=index,
            boxes=found.boxes.detach().float().cpu().numpy().reshape(-1, 4)[order],
            scores=scores[order],
            labels=found.labels.cpu().numpy().astype(np.int64)[order],
            true_boxes=truth.boxes.float().cpu().numpy().reshape(-1, 4),
            true_labels=truth.labels.cpu().numpy().astype(np.int64),
            image_size=truth.image_size,
            ignore_boxes=regions,
            ignore_labels=classes,
        )

    def covered(self) -> Float64[np.ndarray, " n"]:
        """Largest share of each detection's area inside one ignore region of its class; 0 without area or region."""
        if not len(self.ignore_boxes) or not len(self.boxes):
            return np.zeros(len(self.boxes))
        share = _intersections(self.boxes, self.ignore_boxes)
        area = _area(self.boxes.astype(np.float64))[:, None]
        fits = (self.ignore_labels == -1)[None] | (self.ignore_labels[None] == self.labels[:, None])
        return np.where(fits & (area > 0), share / np.where(area > 0, area, 1.0), 0.0).max(axis=1)  # type: ignore[no-any-return]


def overlaps(boxes: Float32[np.ndarray, "n 4"], others: Float32[np.ndarray, "m 4"]) -> Float64[np.ndarray, "n m"]:
    """Intersection over union of every pair, in float64; 0 where a union is empty.

    >>> overlaps(np.float32([[0, 0, 10, 10]]), np.float32([[0, 0, 10, 5], [20, 20, 30, 30]])).tolist()
    [[0.5, 0.0]]
    """
    inter = _intersections(boxes, others)
    union = _area(boxes.astype(np.float64))[:, None] + _area(others.astype(np.float64))[None] - inter
    return inter / np.where(union > 0, union, 1.0)


def _intersections(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    a, b = boxes.astype(np.float64)[:, None], others.astype(np.float64)[None]
    width = np.clip(np.minimum(a[..., 2], b[..., 2]) - np.maximum(a[..., 0], b[..., 0]), 0, None)
    height = np.clip(np.minimum(a[..., 3], b[..., 3]) - np.maximum(a[..., 1], b[..., 1]), 0, None)
    return width * height  # type: ignore[no-any-return]


def _regions(truth: GroundTruth) -> tuple[np.ndarray, np.ndarray]:
    if truth.ignore is None:
        return _no_boxes(), _no_labels()
    boxes = truth.ignore.float().cpu().numpy().reshape(-1, 4)
    if truth.ignore_labels is None:
        return boxes, np.full(len(boxes), -1, np.int64)
    return boxes, truth.ignore_labels.cpu().numpy().astype(np.int64)


def _area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])  # type: ignore[no-any-return]
