# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Bridge to the COCO evaluator (faster-coco-eval): the twelve official numbers and the AP of every class."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64

from boxwright.evaluation.scene import Scene

# The official twelve, in the order the evaluator gives them. Detections beyond the best 100 of a class in an image do
# not count, as the official protocol says; the area ranges are px of the original image (32 and 96 squared).
COCO_NAMES = (
    "ap50_95", "ap50", "ap75", "ap_small", "ap_medium", "ap_large",
    "ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class CocoResult:
    """Numbers of the COCO protocol; -1 where nothing is labelled, as the official evaluator writes it."""

    summary: dict[str, float]  # by COCO_NAMES
    ap50_95: Float64[np.ndarray, " C"]  # per class
    ap50: Float64[np.ndarray, " C"]


def coco_result(scenes: Sequence[Scene], num_classes: int) -> CocoResult:
    """The COCO evaluator's verdict on boxes. Prints nothing.

    A label's area, which the small, medium and large rows go by, is the area of its box. Ignore regions are its crowds:
    a detection that matches no label and lies inside one by the threshold's share of its own area is not counted.
    """
    if not any(len(scene.true_labels) for scene in scenes):
        nothing = np.full(num_classes, -1.0)
        return CocoResult(dict.fromkeys(COCO_NAMES, -1.0), nothing, nothing)
    from faster_coco_eval import COCO, COCOeval_faster

    labels = _dataset(COCO, scenes, num_classes, _label_rows(scenes))
    found = _dataset(COCO, scenes, num_classes, _found_rows(scenes))
    evaluation = COCOeval_faster(labels, found, iouType="bbox", print_function=_silent)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    summary = dict(zip(COCO_NAMES, map(float, evaluation.stats[: len(COCO_NAMES)]), strict=True))
    precision = np.asarray(evaluation.eval["precision"])[:, :, :, 0, -1]  # (thresholds, recalls, classes), area "all"
    return CocoResult(summary, _mean(precision), _mean(precision[:1]))


def _mean(precision: np.ndarray) -> np.ndarray:
    """Mean over thresholds and recalls per class; the whole class is -1 where it has no labels."""
    return precision.mean(axis=(0, 1), dtype=np.float64)  # type: ignore[no-any-return]


def _silent(*_: object) -> None:
    pass


def _dataset(coco: Any, scenes: Sequence[Scene], num_classes: int, rows: Iterator[dict[str, Any]]) -> Any:
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


def _label_rows(scenes: Sequence[Scene]) -> Iterator[dict[str, Any]]:
    for image, scene in enumerate(scenes, 1):
        for box, label in zip(_xywh(scene.true_boxes), scene.true_labels.tolist(), strict=True):
            yield {"image_id": image, "category_id": label, "bbox": box, "area": box[2] * box[3]}
        for box, label in zip(_xywh(scene.ignore_boxes), scene.ignore_labels.tolist(), strict=True):
            # A region of all classes is written for those that were found here: only they can meet it.
            for of in np.unique(scene.labels).tolist() if label == -1 else [label]:
                yield {"image_id": image, "category_id": of, "bbox": box, "area": box[2] * box[3], "iscrowd": 1}


def _found_rows(scenes: Sequence[Scene]) -> Iterator[dict[str, Any]]:
    for image, scene in enumerate(scenes, 1):
        columns = (_xywh(scene.boxes), scene.scores.tolist(), scene.labels.tolist())
        for box, score, label in zip(*columns, strict=True):
            yield {"image_id": image, "category_id": label, "bbox": box, "area": box[2] * box[3], "score": score}


def _xywh(boxes: np.ndarray) -> list[list[float]]:
    wide = boxes.astype(np.float64)
    return np.concatenate((wide[:, :2], wide[:, 2:] - wide[:, :2]), axis=1).tolist()  # type: ignore[no-any-return]
