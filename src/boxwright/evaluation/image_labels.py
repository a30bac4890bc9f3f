# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Labels of whole images: top-1, top-5, and which class is taken for which."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from boxwright.errors import ShapeError
from boxwright.evaluation.config import EvaluationConfig
from boxwright.evaluation.result import NAN, ClassResult, EvaluationResult
from boxwright.results import Classification, ImageTruth
from boxwright.vocabulary import Vocabulary

BEST = 5  # classes of an image that are kept


@dataclass(frozen=True, slots=True)
class ImageScene:
    """The best classes of one image, best first, and its label."""

    index: int
    best: Int64[np.ndarray, " k"]
    label: int


class ImageEvaluator:
    """Collects what was said of each image; `result` scores it. An image seen twice counts once."""

    def __init__(self, vocabulary: Vocabulary, config: EvaluationConfig) -> None:
        self.names = vocabulary.names
        self.config = config
        self._scenes: dict[int, ImageScene] = {}

    def __len__(self) -> int:
        return len(self._scenes)

    def update(
        self,
        found: Sequence[Classification],
        truths: Sequence[ImageTruth],
        indices: Sequence[int] | None = None,
    ) -> None:
        """Adds images; `indices` are their positions in the dataset, the next free ones when not given.

        Raises:
            ShapeError: the numbers of results, truths and indices differ, or a label is not a class index.
        """
        start = max(self._scenes, default=-1) + 1
        indices = range(start, start + len(found)) if indices is None else indices
        if not len(found) == len(truths) == len(indices):
            raise ShapeError(
                f"ImageEvaluator.update: expected as many truths and indices as results ({len(found)}), "
                f"got {len(truths)} and {len(indices)}"
            )
        for index, one, truth in zip(indices, found, truths, strict=True):
            if not 0 <= truth.label < len(self.names):
                raise ShapeError(
                    f"ImageEvaluator.update: image {index}: expected a label from 0 to {len(self.names) - 1}, "
                    f"got {truth.label}"
                )
            order = np.argsort(-one.scores.float().cpu().numpy(), kind="stable")[:BEST]
            self._scenes[index] = ImageScene(index, order.astype(np.int64), truth.label)

    def state(self) -> list[ImageScene]:
        """What this rank has seen, to be sent to another rank's `merge`."""
        return list(self._scenes.values())

    def merge(self, states: Iterable[list[ImageScene]]) -> None:
        """Adds what other ranks have seen."""
        for scenes in states:
            self._scenes.update({scene.index: scene for scene in scenes})

    def result(self) -> EvaluationResult:
        """Scores everything seen so far; the fitness is the mean of top-1 and top-5.

        Source: spec/recipe 7.
        """
        scenes = [self._scenes[index] for index in sorted(self._scenes)]
        classes = len(self.names)
        confusion = np.zeros((classes, classes), np.int64)
        near = np.zeros(classes, np.int64)  # images of each class with the label among the best five
        for scene in scenes:
            confusion[scene.best[0], scene.label] += 1
            near[scene.label] += scene.label in scene.best
        images = confusion.sum(axis=0)
        top1, top5 = (float(hits.sum() / len(scenes)) if scenes else 0.0 for hits in (confusion.diagonal(), near))
        rows = tuple(_row(name, label, confusion, near) for label, name in enumerate(self.names))
        held = [row for row in rows if row.images]
        means = {
            name: float(np.mean([getattr(row, name) for row in held] or [0.0]))
            for name in ("precision", "recall", "f1")
        }
        return EvaluationResult(
            names=self.names,
            metrics={"top1": top1, "top5": top5, **means},
            tables={"image": rows},
            kind_curves={},
            confusion=confusion,
            images=len(scenes),
            instances=int(images.sum()),
            fitness=(top1 + top5) / 2,
        )


def _row(name: str, label: int, confusion: np.ndarray, near: np.ndarray) -> ClassResult:
    """The line of one class; its top-1 is its recall."""
    hits, images, said = int(confusion[label, label]), int(confusion[:, label].sum()), int(confusion[label].sum())
    if not images:
        return ClassResult(name=name, images=0, instances=0, precision=NAN, recall=NAN, f1=NAN)
    return ClassResult(
        name=name,
        images=images,
        instances=images,
        precision=hits / said if said else 0.0,
        recall=hits / images,
        f1=2 * hits / (images + said),
        top1=hits / images,
        top5=int(near[label]) / images,
    )
