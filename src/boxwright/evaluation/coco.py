# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Bridge to the COCO evaluator (faster-coco-eval): the official numbers and the AP of every class, of every kind.

Oriented boxes go through the same protocol with their exact polygon overlap in the place of the box overlap: AP at 0.50
is the DOTA rule with the area under the curve, and the mean over 0.50 to 0.95 is comparable with the other kinds.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64

from boxwright.evaluation.measure import BOX, Measure
from boxwright.evaluation.run_lengths import areas_of
from boxwright.evaluation.scene import EvaluatedScene, box_areas
from boxwright.ops.polygons import box_corners, oriented_corners, pairwise_intersections, polygon_areas

# The official twelve, in the order the evaluator gives them. Detections beyond the best 100 of a class in an image do
# not count, as the official protocol says; the area ranges are px of the original image (32 and 96 squared).
COCO_NAMES = (
    "ap50_95", "ap50", "ap75", "ap_small", "ap_medium", "ap_large",
    "ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large",
)  # fmt: skip
# Of keypoints the best 20 count. The official ten leave small objects out; here they are told as well.
POSE_NAMES = (
    "ap50_95", "ap50", "ap75", "ap_small", "ap_medium", "ap_large",
    "ar20", "ar20_50", "ar20_75", "ar_small", "ar_medium", "ar_large",
)  # fmt: skip
SIZES = ("small", "medium", "large")
AREA_RANGES = [[0, 1e5**2], [0, 32**2], [32**2, 96**2], [96**2, 1e5**2]]  # px^2: all, then SIZES


@dataclass(frozen=True, slots=True)
class CocoResult:
    """Numbers of the COCO protocol; -1 where nothing is labelled, as the official evaluator writes it."""

    summary: dict[str, float]  # by COCO_NAMES, or POSE_NAMES
    ap50_95: Float64[np.ndarray, " C"]  # per class
    ap50: Float64[np.ndarray, " C"]
    by_size: dict[str, Float64[np.ndarray, " C"]]  # ap50_95 per class, by SIZES


def coco_result(scenes: Sequence[EvaluatedScene], num_classes: int, measure: Measure = BOX) -> CocoResult:
    """The COCO evaluator's verdict on one kind of comparison. Prints nothing.

    Ignore regions are its crowds: a detection that matches no label and lies inside one by the threshold's share of its
    own area is not counted; a pose lies inside when its keypoints are near the region. Masks are compared with the
    region's own shape where it is known, all others with its box.
    """
    names = POSE_NAMES if measure.facts.keypoints else COCO_NAMES
    if not any(measure.counted(scene).any() for scene in scenes):
        nothing = np.full(num_classes, -1.0)
        return CocoResult(dict.fromkeys(names, -1.0), nothing, nothing, dict.fromkeys(SIZES, nothing))
    from faster_coco_eval import COCO

    labels = _dataset(COCO, scenes, num_classes, _label_rows(scenes, measure))
    found = _dataset(COCO, scenes, num_classes, _found_rows(scenes, measure))
    sigmas = list(measure.sigmas) or None
    evaluation = _evaluation_class(measure)(
        labels, found, iouType=measure.facts.coco, print_function=_silent, kpt_oks_sigmas=sigmas
    )
    evaluation.params.catIds = list(range(num_classes))
    evaluation.params.areaRng = AREA_RANGES
    evaluation.params.areaRngLbl = ["all", *SIZES]
    evaluation.evaluate()
    evaluation.accumulate()
    # (thresholds, recalls, classes, areas, detection limits) and the same without recalls
    precision = np.asarray(evaluation.eval["precision"])
    recall = np.asarray(evaluation.eval["recall"])
    best = precision[:, :, :, 0, -1]
    by_size = {size: _mean(precision[:, :, :, area, -1]) for area, size in enumerate(SIZES, 1)}
    values = _precisions(precision) + (_pose_recalls(recall) if measure.facts.keypoints else _recalls(recall))
    return CocoResult(dict(zip(names, values, strict=True)), _mean(best), _mean(best[:1]), by_size)


def _precisions(precision: np.ndarray) -> list[float]:
    best = precision[..., 0, -1]
    return [_all(best), _all(best[0]), _all(best[5]), *(_all(precision[..., area, -1]) for area in (1, 2, 3))]


def _recalls(recall: np.ndarray) -> list[float]:
    return [*(_all(recall[..., 0, limit]) for limit in range(3)), *(_all(recall[..., area, -1]) for area in (1, 2, 3))]


def _pose_recalls(recall: np.ndarray) -> list[float]:
    best = recall[..., 0, -1]
    return [_all(best), _all(best[0]), _all(best[5]), *(_all(recall[..., area, -1]) for area in (1, 2, 3))]


def _all(values: np.ndarray) -> float:
    """Mean over everything that is labelled."""
    told = values[values > -1]
    return float(told.mean()) if told.size else -1.0


def _mean(precision: np.ndarray) -> np.ndarray:
    """Mean over thresholds and recalls per class; the whole class is -1 where it has no labels."""
    return precision.mean(axis=(0, 1), dtype=np.float64)  # type: ignore[no-any-return]


def _silent(*_: object) -> None:
    pass


def _evaluation_class(measure: Measure) -> Any:
    from faster_coco_eval import COCOeval_faster

    if not measure.facts.oriented:
        return COCOeval_faster

    class OrientedEvaluation(COCOeval_faster):  # type: ignore[misc]
        """The protocol with the exact overlap of polygons."""

        def computeIoU(self, imgId: Any, catId: Any) -> Any:  # noqa: N802, N803 - the evaluator's names
            labels, found = (of.get(imgId, catId) for of in (self.gt_dataset, self.dt_dataset))
            if not labels or not found:
                return []
            order = np.argsort([-row["score"] for row in found], kind="mergesort")[: self.params.maxDets[-1]]
            mine = np.array([found[row]["corners"] for row in order])
            true = np.array([row["corners"] for row in labels])
            shared = pairwise_intersections(mine, true)
            area = polygon_areas(mine)[:, None]
            crowd = np.array([bool(row["iscrowd"]) for row in labels])
            whole = np.where(crowd[None], area, area + polygon_areas(true)[None] - shared)
            return shared / np.where(whole > 0, whole, 1.0)

    return OrientedEvaluation


def _dataset(coco: Any, scenes: Sequence[EvaluatedScene], num_classes: int, rows: Iterator[dict[str, Any]]) -> Any:
    dataset = coco()
    dataset.dataset = {
        "images": [
            {"id": number, "height": scene.image_size[0], "width": scene.image_size[1]}
            for number, scene in enumerate(scenes, 1)
        ],
        "categories": [{"id": label, "name": str(label)} for label in range(num_classes)],
        # ids count from 1: the evaluator marks "unmatched" with 0
        "annotations": [{"id": number, "iscrowd": 0, **row} for number, row in enumerate(rows, 1)],
    }
    dataset.createIndex()
    return dataset


def _label_rows(scenes: Sequence[EvaluatedScene], measure: Measure) -> Iterator[dict[str, Any]]:
    for image, scene in enumerate(scenes, 1):
        shapes = _shapes(scene.true_boxes, scene.true_masks, scene.true_keypoints, scene.image_size, measure)
        columns = (shapes, scene.true_labels.tolist(), measure.true_areas(scene).tolist())
        for shape, label, area in zip(*columns, strict=True):
            yield {"image_id": image, "category_id": label, "area": area, **shape}
        yield from _region_rows(image, scene, measure)


def _region_rows(image: int, scene: EvaluatedScene, measure: Measure) -> Iterator[dict[str, Any]]:
    regions = scene.ignore_boxes
    masks = scene.region_masks if measure.facts.masks else ()
    points = None
    if measure.facts.keypoints:
        points = np.zeros((len(regions), len(measure.sigmas), 3), np.float32)
    shapes = _shapes(regions, masks, points, scene.image_size, measure)
    for shape, label, area in zip(shapes, scene.ignore_labels.tolist(), box_areas(regions).tolist(), strict=True):
        # A region of all classes is written for those that were found here: only they can meet it.
        for of in np.unique(scene.labels).tolist() if label == -1 else [label]:
            yield {"image_id": image, "category_id": of, "area": area, "iscrowd": 1, **shape}


def _found_rows(scenes: Sequence[EvaluatedScene], measure: Measure) -> Iterator[dict[str, Any]]:
    for image, scene in enumerate(scenes, 1):
        shapes = _shapes(scene.boxes, scene.masks, scene.keypoints, scene.image_size, measure)
        areas = _found_areas(scene, measure).tolist()
        for shape, score, label, area in zip(shapes, scene.scores.tolist(), scene.labels.tolist(), areas, strict=True):
            yield {"image_id": image, "category_id": label, "area": area, "score": score, **shape}


def _found_areas(scene: EvaluatedScene, measure: Measure) -> np.ndarray:
    """Area that the size ranges sort a detection by, as the official loader of results has it."""
    if measure.facts.masks:
        return areas_of(scene.masks, scene.image_size)
    if measure.facts.keypoints and scene.keypoints is not None:
        sides = np.ptp(scene.keypoints[..., :2].astype(np.float64), axis=1)
        return sides[:, 0] * sides[:, 1]  # type: ignore[no-any-return]
    return box_areas(scene.boxes)


def _shapes(
    boxes: np.ndarray,
    masks: Sequence[bytes],
    keypoints: np.ndarray | None,
    image_size: tuple[int, int],
    measure: Measure,
) -> list[dict[str, Any]]:
    """What the evaluator compares, one dict per object."""
    if measure.facts.oriented:
        wide = boxes.astype(np.float64)
        corners = oriented_corners(wide) if boxes.shape[1] == 5 else box_corners(wide)
        around = np.concatenate((corners.min(axis=1), corners.max(axis=1)), axis=1)
        return [{"bbox": box, "corners": of} for box, of in zip(_xywh(around), corners, strict=True)]
    shapes: list[dict[str, Any]] = [{"bbox": box} for box in _xywh(boxes)]
    if measure.facts.masks:
        for shape, counts in zip(shapes, masks, strict=True):
            shape["segmentation"] = {"size": list(image_size), "counts": counts}
    if measure.facts.keypoints and keypoints is not None:
        for shape, points in zip(shapes, keypoints.astype(np.float64), strict=True):
            shape["keypoints"] = points.reshape(-1).tolist()
            shape["num_keypoints"] = int((points[:, 2] > 0).sum())
    return shapes


def _xywh(boxes: np.ndarray) -> list[list[float]]:
    wide = boxes.astype(np.float64)
    return np.concatenate((wide[:, :2], wide[:, 2:] - wide[:, :2]), axis=1).tolist()  # type: ignore[no-any-return]
