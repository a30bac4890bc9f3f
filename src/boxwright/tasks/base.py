# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Task: what differs between detecting boxes and any other question asked of the same dense predictions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from boxwright.evaluation.evaluator import EvaluationConfig, Evaluator
from boxwright.ops.letterbox import Letterbox
from boxwright.results import Detections
from boxwright.structures import Predictions
from boxwright.tasks.postprocess import Kept


@runtime_checkable  # the tests check calls at run time
class Finish(Protocol):
    """Turns kept rows into Detections; tasks with masks or keypoints gather those from `preds` by `Kept.anchors`."""

    def __call__(
        self,
        preds: Predictions,
        kept: Sequence[Kept],
        letterboxes: Sequence[Letterbox],
        *,
        names: Sequence[str],
        class_ids: Sequence[int] | None = None,
        paths: Sequence[str | None] | None = None,
    ) -> list[Detections]:
        """Detections of every image, px of the original image, best first."""
        ...


@runtime_checkable
class Select(Protocol):
    """Picks the rows of every image that are worth finishing."""

    def __call__(
        self,
        preds: Predictions,
        *,
        conf: float,
        iou: float,
        max_det: int = 300,
        multi_label: bool = False,
        classes: Sequence[int] | None = None,
        agnostic: bool = False,
    ) -> list[Kept]:
        """Kept rows, best first."""
        ...


@dataclass(frozen=True, slots=True)
class Task:
    """One task's specifics; families know nothing of it and it knows no family."""

    name: str
    select: Select
    finish: Finish
    evaluator: Callable[[Sequence[str], EvaluationConfig], Evaluator]
