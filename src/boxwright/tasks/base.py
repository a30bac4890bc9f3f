# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Task: everything that happens after the forward pass, and what any thing that computes one must offer."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from boxwright.evaluation.config import EvaluationConfig
from boxwright.evaluation.result import EvaluationResult
from boxwright.ops.letterbox import Letterbox
from boxwright.results import Classification, Detections
from boxwright.structures import ImageOutputs, Outputs
from boxwright.vocabulary import TaskName, Vocabulary

Found = list[Detections] | list[Classification]


@dataclass(frozen=True, slots=True)
class SelectOptions:
    """Which candidates are kept."""

    conf: float = 0.25  # a score must be above it
    iou: float = 0.7  # suppression removes what overlaps a better one by more
    max_det: int = 300  # per image
    multi_label: bool = False  # one row per (candidate, class) above conf, not only the best class
    classes: Sequence[int] | None = None  # keep only these labels
    agnostic: bool = False  # suppress across classes


@runtime_checkable
class Forward(Protocol):
    """What predictor and validator need of a model: a `Network`, or the runtime of an exported file."""

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels per cell of each level; the sides of its images are multiples of the coarsest."""
        ...

    @property
    def num_classes(self) -> int:
        """Number of classes it tells apart."""
        ...

    def __call__(self, images: Float[Tensor, "B 3 H W"]) -> Outputs | ImageOutputs:
        """Raw outputs for images in 0..1."""
        ...


@runtime_checkable
class Results(Protocol):
    """Turns a model's outputs into what was found, in pixels of the original images, best first."""

    def __call__(
        self,
        outputs: Outputs | ImageOutputs,
        letterboxes: Sequence[Letterbox],
        *,
        options: SelectOptions,
        vocabulary: Vocabulary,
        paths: Sequence[str | None] | None = None,
    ) -> Found:
        """One result for every image of the batch."""
        ...


@runtime_checkable
class AnyEvaluator(Protocol):
    """Collects what was found in each image; `result` scores it. Order of images, batches and ranks change nothing."""

    def __len__(self) -> int:
        """Images seen."""
        ...

    def update(self, found: Sequence[Any], truths: Sequence[Any], indices: Sequence[int] | None = None) -> None:
        """Adds images; `indices` are their positions in the dataset."""
        ...

    def state(self) -> list[Any]:
        """What this rank has seen, for another rank's `merge`."""
        ...

    def merge(self, states: Iterable[list[Any]]) -> None:
        """Adds what other ranks have seen."""
        ...

    def result(self) -> EvaluationResult:
        """Scores everything seen so far."""
        ...


@dataclass(frozen=True, slots=True)
class Task:
    """One task's specifics; families know nothing of it and it knows no family."""

    name: TaskName
    results: Results
    evaluator: Callable[[Vocabulary, EvaluationConfig], AnyEvaluator]
