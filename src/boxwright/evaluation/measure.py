# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""How alike a detection and a label are, for each kind of comparison: boxes, masks, keypoints, oriented boxes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32, Float64

from boxwright.evaluation.run_lengths import overlaps_of
from boxwright.evaluation.scene import EvaluatedScene, box_areas
from boxwright.ops.polygons import box_corners, oriented_corners, pairwise_intersections, pairwise_oriented_iou

ObjectKind = Literal["box", "mask", "pose", "obb"]


@dataclass(frozen=True, slots=True)
class KindFacts:
    """What one kind of comparison looks at in the place of upright boxes."""

    coco: str = "bbox"  # what the COCO evaluator calls it
    masks: bool = False
    keypoints: bool = False
    oriented: bool = False  # boxes with an angle


KINDS: Mapping[ObjectKind, KindFacts] = {
    "box": KindFacts(),
    "mask": KindFacts(coco="segm", masks=True),
    "pose": KindFacts(coco="keypoints", keypoints=True),
    "obb": KindFacts(oriented=True),
}
BODY_SHARE = 0.53  # of a box, where nothing tells the area of the body in it; spec/recipe 7


@dataclass(frozen=True, slots=True)
class Measure:
    """One kind of comparison.

    Boxes, masks and oriented boxes overlap (intersection over union, of oriented ones of the exact polygons); keypoints
    have the object keypoint similarity. Source: spec/recipe 7.
    """

    kind: ObjectKind = "box"
    sigmas: tuple[float, ...] = ()  # tolerance of each keypoint, where keypoints are compared

    @property
    def facts(self) -> KindFacts:
        """What the kind looks at."""
        return KINDS[self.kind]

    def similarity(
        self, scene: EvaluatedScene, wanted: Bool[np.ndarray, "n m"] | None = None
    ) -> Float64[np.ndarray, "n m"]:
        """Of every detection to every label, from 0 to 1; `wanted` pairs at least: comparing masks takes long."""
        if self.facts.masks:
            return self._masks(scene, wanted)
        if self.facts.keypoints:
            return self._keypoints(scene)
        if self.facts.oriented:
            return pairwise_oriented_iou(scene.boxes, scene.true_boxes)
        return overlaps(scene.boxes, scene.true_boxes)

    def counted(self, scene: EvaluatedScene) -> Bool[np.ndarray, " m"]:
        """Which labels count: without a labelled keypoint an object can be neither found nor missed."""
        if self.facts.keypoints and scene.true_keypoints is not None:
            return np.count_nonzero(scene.true_keypoints[..., 2] > 0, axis=1) > 0  # type: ignore[no-any-return]
        return np.ones(len(scene.true_labels), bool)

    def covered(self, scene: EvaluatedScene) -> Float64[np.ndarray, " n"]:
        """How much of each detection lies in one ignore region of its class; 0 without area or region.

        The largest share of its area. Poses: how near its keypoints are to the region, or to an object without a
        labelled keypoint, by the rule of the COCO evaluator.
        """
        regions, classes = scene.ignore_boxes, scene.ignore_labels
        areas = box_areas(regions)
        if self.facts.keypoints:
            blank = ~self.counted(scene)
            regions = np.concatenate((regions, scene.true_boxes[blank]))
            classes = np.concatenate((classes, scene.true_labels[blank]))
            areas = np.concatenate((areas, self.true_areas(scene)[blank]))
        if not len(regions) or not len(scene.boxes):
            return np.zeros(len(scene.boxes))
        fits = (classes == -1)[None] | (classes[None] == scene.labels[:, None])
        return np.where(fits, self._share(scene, regions, areas), 0.0).max(axis=1)  # type: ignore[no-any-return]

    def _share(self, scene: EvaluatedScene, regions: np.ndarray, areas: np.ndarray) -> np.ndarray:
        if self.facts.masks:
            return overlaps_of(scene.masks, scene.region_masks, scene.image_size, of_first=True)
        if self.facts.keypoints:
            return self._nearness(scene, regions.astype(np.float64), areas)
        if scene.oriented:
            inter = pairwise_intersections(oriented_corners(scene.boxes), box_corners(regions))
        else:
            inter = _intersections(scene.boxes, regions)
        area = box_areas(scene.boxes)[:, None]
        return np.where(area > 0, inter / np.where(area > 0, area, 1.0), 0.0)

    def _nearness(self, scene: EvaluatedScene, regions: np.ndarray, areas: np.ndarray) -> np.ndarray:
        """Similarity to boxes without keypoints: 1 within a box of three times the size, less further away."""
        if scene.keypoints is None:
            return np.zeros((len(scene.boxes), len(regions)))
        places = scene.keypoints[:, None, :, :2].astype(np.float64)
        sides = regions[:, 2:] - regions[:, :2]
        low, high = (regions[:, :2] - sides)[None, :, None], (regions[:, 2:] + sides)[None, :, None]
        squares = np.square(np.maximum(low - places, 0) + np.maximum(places - high, 0)).sum(axis=-1)
        return np.exp(-squares / self._spread(areas)[None]).mean(axis=-1)  # type: ignore[no-any-return]

    def _spread(self, areas: np.ndarray) -> np.ndarray:
        """What squared distances of each keypoint are divided by, (m, K) px^2."""
        spread: np.ndarray = np.square(2 * np.array(self.sigmas)) * (areas[:, None] + np.spacing(1)) * 2
        return spread

    def true_areas(self, scene: EvaluatedScene) -> Float64[np.ndarray, " m"]:
        """Area of every label, px^2: as the file says, else of the outline, else of the box."""
        if scene.true_areas is not None:
            return scene.true_areas
        return box_areas(scene.true_boxes) * (BODY_SHARE if self.facts.keypoints else 1.0)

    def _masks(self, scene: EvaluatedScene, wanted: np.ndarray | None) -> np.ndarray:
        if wanted is None:
            return overlaps_of(scene.masks, scene.true_masks, scene.image_size)
        overlap = np.zeros(wanted.shape)
        for column, mask in enumerate(scene.true_masks):
            rows = np.flatnonzero(wanted[:, column])
            found = [scene.masks[row] for row in rows]
            overlap[rows, column] = overlaps_of(found, [mask], scene.image_size)[:, 0]
        return overlap

    def _keypoints(self, scene: EvaluatedScene) -> np.ndarray:
        if scene.keypoints is None or scene.true_keypoints is None:
            return np.zeros((len(scene.labels), len(scene.true_labels)))
        found, true = scene.keypoints.astype(np.float64), scene.true_keypoints.astype(np.float64)
        squares = np.square(found[:, None, :, :2] - true[None, :, :, :2]).sum(axis=-1)
        spread = self._spread(self.true_areas(scene))
        seen = true[..., 2] > 0
        alike = np.where(seen[None], np.exp(-squares / spread[None]), 0.0).sum(axis=-1)
        return alike / np.maximum(seen.sum(axis=-1), 1)  # type: ignore[no-any-return]


BOX = Measure()


def overlaps(boxes: Float32[np.ndarray, "n 4"], others: Float32[np.ndarray, "m 4"]) -> Float64[np.ndarray, "n m"]:
    """Intersection over union of every pair, in float64; 0 where a union is empty.

    >>> overlaps(np.float32([[0, 0, 10, 10]]), np.float32([[0, 0, 10, 5], [20, 20, 30, 30]])).tolist()
    [[0.5, 0.0]]
    """
    inter = _intersections(boxes, others)
    union = box_areas(boxes)[:, None] + box_areas(others)[None] - inter
    return inter / np.where(union > 0, union, 1.0)


def _intersections(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    a, b = boxes.astype(np.float64)[:, None], others.astype(np.float64)[None]
    width = np.clip(np.minimum(a[..., 2], b[..., 2]) - np.maximum(a[..., 0], b[..., 0]), 0, None)
    height = np.clip(np.minimum(a[..., 3], b[..., 3]) - np.maximum(a[..., 1], b[..., 1]), 0, None)
    return width * height  # type: ignore[no-any-return]
