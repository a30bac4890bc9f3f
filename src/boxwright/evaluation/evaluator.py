# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Evaluator: collects detections and labels image by image, merges ranks, and gives the result.

`box/ap50_95` and `box/ap50` are the COCO evaluator's (official protocol: the best 100 detections per class and image).
`box/curve_ap50_95` and `box/curve_ap50` are the 101-point form other YOLO code prints (all kept detections).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from boxwright.errors import ShapeError
from boxwright.evaluation.coco import CocoResult, coco_result
from boxwright.evaluation.config import EvaluationConfig
from boxwright.evaluation.confusion import confusion_matrix
from boxwright.evaluation.curves import Curves, curves_of
from boxwright.evaluation.scene import Scene
from boxwright.results import Detections, GroundTruth

__all__ = ["ClassResult", "EvaluationConfig", "EvaluationResult", "Evaluator"]


@dataclass(frozen=True, slots=True)
class ClassResult:
    """One line of the results table; NaN where the class has no labels."""

    name: str
    images: int  # with at least one label of the class
    instances: int
    precision: float  # at the operating point, overlap 0.5
    recall: float
    f1: float
    ap50: float  # COCO evaluator
    ap50_95: float
    curve_ap50: float  # 101-point curve
    curve_ap50_95: float


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """Everything an evaluation found out."""

    names: tuple[str, ...]
    metrics: dict[str, float]  # "box/ap50_95", ...; COCO writes -1 for what no label allows to measure
    per_class: tuple[ClassResult, ...]  # one per class, in class order
    curves: Curves
    confusion: Int64[np.ndarray, "n n"]  # rows predicted, columns true, last index background
    images: int
    instances: int

    @property
    def fitness(self) -> float:
        """What the best epoch is chosen by: 0.1 ap50 + 0.9 ap50_95 of the COCO evaluator, 0 without labels."""
        return max(0.0, 0.1 * self.metrics["box/ap50"] + 0.9 * self.metrics["box/ap50_95"])

    @property
    def total(self) -> ClassResult:
        """The line "all": means over the classes that have labels."""
        m = self.metrics
        return ClassResult(
            name="all",
            images=self.images,
            instances=self.instances,
            precision=m["box/precision"],
            recall=m["box/recall"],
            f1=m["box/f1"],
            ap50=m["box/ap50"],
            ap50_95=m["box/ap50_95"],
            curve_ap50=m["box/curve_ap50"],
            curve_ap50_95=m["box/curve_ap50_95"],
        )


class Evaluator:
    """Collects what was found in each image; `result` scores it.

    The order of images, batches and ranks changes nothing: images are put in dataset order, and an image that was seen
    twice (a padded shard) counts once.
    """

    def __init__(self, names: Sequence[str], config: EvaluationConfig) -> None:
        self.names = tuple(names)
        self.config = config
        self._scenes: dict[int, Scene] = {}

    def __len__(self) -> int:
        return len(self._scenes)

    def update(
        self,
        detections: Sequence[Detections],
        truths: Sequence[GroundTruth],
        indices: Sequence[int] | None = None,
    ) -> None:
        """Adds images; `indices` are their positions in the dataset, the next free ones when not given.

        Raises:
            ShapeError: the numbers of detections, truths and indices differ, or a label is not a class index.
        """
        start = max(self._scenes, default=-1) + 1
        indices = range(start, start + len(detections)) if indices is None else indices
        if not len(detections) == len(truths) == len(indices):
            raise ShapeError(
                f"Evaluator.update: expected as many truths and indices as detections ({len(detections)}), "
                f"got {len(truths)} and {len(indices)}"
            )
        for index, found, truth in zip(indices, detections, truths, strict=True):
            scene = Scene.of(index, found, truth)
            self._check(scene)
            self._scenes[index] = scene

    def state(self) -> list[Scene]:
        """What this rank has seen, to be sent to another rank's `merge`."""
        return list(self._scenes.values())

    def merge(self, states: Iterable[list[Scene]]) -> None:
        """Adds what other ranks have seen."""
        for scenes in states:
            self._scenes.update({scene.index: scene for scene in scenes})

    def result(self) -> EvaluationResult:
        """Scores everything seen so far."""
        scenes = [self._scenes[index] for index in sorted(self._scenes)]
        num_classes = len(self.names)
        coco = coco_result(scenes, num_classes)
        curves = curves_of(scenes, self.config.curve)
        return EvaluationResult(
            names=self.names,
            metrics=_metrics(coco, curves),
            per_class=tuple(_class_results(self.names, scenes, coco, curves)),
            curves=curves,
            confusion=confusion_matrix(
                scenes, num_classes, conf=self.config.confusion_conf, iou=self.config.confusion_iou
            ),
            images=len(scenes),
            instances=sum(len(scene.true_labels) for scene in scenes),
        )

    def _check(self, scene: Scene) -> None:
        for what, labels in (("detections", scene.labels), ("truths", scene.true_labels)):
            if len(labels) and not 0 <= labels.min() <= labels.max() < len(self.names):
                raise ShapeError(
                    f"Evaluator.update: {what} of image {scene.index}: expected labels from 0 to "
                    f"{len(self.names) - 1}, got {labels.min()} to {labels.max()}"
                )


def _metrics(coco: CocoResult, curves: Curves) -> dict[str, float]:
    values = {f"box/{name}": value for name, value in coco.summary.items()}
    some = len(curves.classes) > 0
    values["box/precision"] = float(curves.precision[:, curves.best].mean()) if some else 0.0
    values["box/recall"] = float(curves.recall[:, curves.best].mean()) if some else 0.0
    values["box/f1"] = float(curves.f1[:, curves.best].mean()) if some else 0.0
    values["box/confidence"] = curves.confidence if some else 0.0
    values["box/curve_ap50_95"] = float(curves.ap.mean()) if some else 0.0
    values["box/curve_ap50"] = float(curves.ap[:, 0].mean()) if some else 0.0
    return values


def _class_results(
    names: tuple[str, ...], scenes: list[Scene], coco: CocoResult, curves: Curves
) -> Iterable[ClassResult]:
    row_of = {int(label): row for row, label in enumerate(curves.classes)}
    images, instances = np.zeros(len(names), np.int64), np.zeros(len(names), np.int64)
    for scene in scenes:
        np.add.at(instances, scene.true_labels, 1)
        images[np.unique(scene.true_labels)] += 1
    nan, columns = float("nan"), (curves.precision, curves.recall, curves.f1)
    for label, name in enumerate(names):
        row = row_of.get(label)
        at_best = [nan if row is None else float(c[row, curves.best]) for c in columns]
        yield ClassResult(
            name=name,
            images=int(images[label]),
            instances=int(instances[label]),
            precision=at_best[0],
            recall=at_best[1],
            f1=at_best[2],
            ap50=nan if row is None else float(coco.ap50[label]),
            ap50_95=nan if row is None else float(coco.ap50_95[label]),
            curve_ap50=nan if row is None else float(curves.ap[row, 0]),
            curve_ap50_95=nan if row is None else float(curves.ap[row].mean()),
        )
