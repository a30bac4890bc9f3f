# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Evaluator: collects detections and labels image by image, merges ranks, and gives the result.

`box/ap50_95` and `box/ap50` are the COCO evaluator's (official protocol: the best 100 detections per class and image).
`box/curve_ap50_95` and `box/curve_ap50` are the 101-point form other YOLO code prints (all kept detections).
"""

from collections.abc import Iterable, Sequence

import numpy as np

from boxwright.errors import ConfigError, ShapeError
from boxwright.evaluation.attributes import attribute_accuracy
from boxwright.evaluation.coco import CocoResult, coco_result
from boxwright.evaluation.config import EvaluationConfig
from boxwright.evaluation.confusion import confusion_matrix
from boxwright.evaluation.curves import Curves, curves_of
from boxwright.evaluation.measure import KINDS, Measure, ObjectKind
from boxwright.evaluation.result import ClassResult, EvaluationResult, Kind
from boxwright.evaluation.scene import EvaluatedScene
from boxwright.ops.keypoints import keypoint_sigmas
from boxwright.results import Detections, GroundTruth
from boxwright.vocabulary import Vocabulary

__all__ = ["ClassResult", "EvaluationConfig", "EvaluationResult", "Evaluator"]


class Evaluator:
    """Collects what was found in each image; `result` scores it.

    The order of images, batches and ranks changes nothing: images are put in dataset order, and an image that was seen
    twice (a padded shard) counts once.
    """

    def __init__(
        self, vocabulary: Vocabulary, config: EvaluationConfig, kinds: Sequence[ObjectKind] = ("box",)
    ) -> None:
        """`kinds` are what is compared; the first is what the confusion matrix and attributes go by."""
        self.names = vocabulary.names
        self.attributes = vocabulary.attributes
        self.measures = tuple(Measure(kind, _sigmas(vocabulary) if KINDS[kind].keypoints else ()) for kind in kinds)
        self.config = config
        self._scenes: dict[int, EvaluatedScene] = {}

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
            scene = EvaluatedScene.of(index, found, truth)
            self._check(scene)
            self._scenes[index] = scene

    def state(self) -> list[EvaluatedScene]:
        """What this rank has seen, to be sent to another rank's `merge`."""
        return list(self._scenes.values())

    def merge(self, states: Iterable[list[EvaluatedScene]]) -> None:
        """Adds what other ranks have seen."""
        for scenes in states:
            self._scenes.update({scene.index: scene for scene in scenes})

    def result(self) -> EvaluationResult:
        """Scores everything seen so far; the fitness adds up 0.1 ap50 + 0.9 ap50_95 of every kind.

        Source: spec/recipe 7.
        """
        scenes = [self._scenes[index] for index in sorted(self._scenes)]
        metrics: dict[str, float] = {}
        tables: dict[Kind, tuple[ClassResult, ...]] = {}
        curves: dict[Kind, Curves] = {}
        fitness = 0.0
        for measure in self.measures:
            coco = coco_result(scenes, len(self.names), measure)
            of = curves_of(scenes, self.config.curve, measure)
            metrics |= _metrics(measure.kind, coco, of)
            tables[measure.kind] = tuple(_class_results(self.names, scenes, coco, of))
            curves[measure.kind] = of
            fitness += max(0.0, 0.1 * coco.summary["ap50"] + 0.9 * coco.summary["ap50_95"])
        told = attribute_accuracy(scenes, self.attributes, self.measures[0])
        config, first = self.config, self.measures[0]
        return EvaluationResult(
            names=self.names,
            metrics=metrics | {f"attributes/{name}": value for name, value in told.items()},
            tables=tables,
            kind_curves=curves,
            confusion=confusion_matrix(
                scenes, len(self.names), conf=config.confusion_conf, iou=config.confusion_iou, measure=first
            ),
            images=len(scenes),
            instances=sum(len(scene.true_labels) for scene in scenes),
            fitness=fitness,
        )

    def _check(self, scene: EvaluatedScene) -> None:
        for measure in self.measures:
            _expect_parts(scene, measure)
        for what, labels in (("detections", scene.labels), ("truths", scene.true_labels)):
            if len(labels) and not 0 <= labels.min() <= labels.max() < len(self.names):
                raise ShapeError(
                    f"Evaluator.update: {what} of image {scene.index}: expected labels from 0 to "
                    f"{len(self.names) - 1}, got {labels.min()} to {labels.max()}"
                )


def _sigmas(vocabulary: Vocabulary) -> tuple[float, ...]:
    spec = vocabulary.keypoints
    if spec is None:
        raise ConfigError("Vocabulary.keypoints: expected a KeypointSpec to compare poses by, got None")
    return keypoint_sigmas(spec.count, spec.dims, spec.sigmas)


def _expect_parts(scene: EvaluatedScene, measure: Measure) -> None:
    """Raises when detections or labels lack what the measure compares."""
    where = f"Evaluator.update: image {scene.index}"
    if measure.facts.masks:
        for what, masks, count in (
            ("detections", scene.masks, len(scene.labels)),
            ("labels", scene.true_masks, len(scene.true_labels)),
        ):
            if len(masks) != count:
                raise ShapeError(f"{where}: expected {what} with {count} masks, got {len(masks)}")
    if measure.facts.keypoints:
        for what, points, count in (
            ("detections", scene.keypoints, len(scene.labels)),
            ("labels", scene.true_keypoints, len(scene.true_labels)),
        ):
            given = None if points is None else points.shape[:2]
            if count and given != (count, len(measure.sigmas)):
                raise ShapeError(f"{where}: expected {what} with {(count, len(measure.sigmas))} keypoints, got {given}")
    boxes = 5 if measure.facts.oriented else 4
    if (len(scene.labels) or len(scene.true_labels)) and scene.boxes.shape[1] != boxes:
        raise ShapeError(f"{where}: expected boxes of {boxes} numbers for '{measure.kind}', got {scene.boxes.shape[1]}")


def _metrics(kind: ObjectKind, coco: CocoResult, curves: Curves) -> dict[str, float]:
    some = len(curves.classes) > 0
    values = dict(coco.summary)
    values["precision"] = float(curves.precision[:, curves.best].mean()) if some else 0.0
    values["recall"] = float(curves.recall[:, curves.best].mean()) if some else 0.0
    values["f1"] = float(curves.f1[:, curves.best].mean()) if some else 0.0
    values["confidence"] = curves.confidence if some else 0.0
    values["curve_ap50_95"] = float(curves.ap.mean()) if some else 0.0
    values["curve_ap50"] = float(curves.ap[:, 0].mean()) if some else 0.0
    return {f"{kind}/{name}": value for name, value in values.items()}


def _class_results(
    names: tuple[str, ...], scenes: list[EvaluatedScene], coco: CocoResult, curves: Curves
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
            **{f"ap_{size}": nan if row is None else float(of[label]) for size, of in coco.by_size.items()},
        )
