# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Terms on the class scores of matched candidates only, for heads whose objectness tells the background."""

from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from boxwright.config import component
from boxwright.errors import ConfigError, ShapeError
from boxwright.kernels.label_bce import label_bce
from boxwright.kernels.rows import slot_of
from boxwright.losses.balance import WeightMode
from boxwright.losses.functional import bce_with_logits, focal, quality_focal
from boxwright.losses.terms.scores import ClassWeightVector
from boxwright.ops.constants import constant
from boxwright.structures import Assignment, Predictions, Targets

Modulation = Literal["none", "focal", "quality_focal"]


@component
class HardScores:
    """Binary cross-entropy of a matched candidate's classes, mean over classes, weighted by the pair's weight.

    The target is 1 - smoothing / 2 at the object's class and smoothing / 2 elsewhere. Silent (zero) for one class:
    there the objectness says it all.

    Source: spec/losses E.1, as YOLOv5 trains; focal: Lin et al. 2017, arXiv:1708.02002; quality focal: Li et al. 2020,
    arXiv:2006.04388.
    """

    kind: Literal["hard_scores"] = "hard_scores"
    smoothing: Annotated[float, Field(ge=0, le=1)] = 0.0
    pos_weight: float = 1.0
    modulation: Modulation = "none"
    gamma: float = 1.5
    alpha: float = 0.25
    class_weights: ClassWeightVector = None  # one number for each class; divisors do not change
    weight_mode: WeightMode = "positive"  # on the positive half of an entry's cost, or on all of it
    scope: ClassVar[Literal["pair"]] = "pair"

    def __post_init__(self) -> None:
        _check_smoothing("HardScores", self.smoothing)
        if not self.gamma >= 1:
            raise ConfigError(
                f"HardScores.gamma: expected at least 1 (below, the slope has no bound), got {self.gamma}"
            )

    def __call__(self, preds: Predictions, targets: Targets, pairs: Assignment) -> Float[Tensor, " P"]:
        """Contribution of each pair.

        Raises:
            ConfigError: the predictions' classes exclude one another.
            ShapeError: class weights for another number of classes.
        """
        if preds.exclusive:
            raise ConfigError(
                "HardScores: expected classes that may occur together, got predictions with exclusive=True; "
                "use ExclusiveScores, or set exclusive to false in the dataset"
            )
        logits, label = preds.logits_at(pairs), targets.labels.flatten().index_select(0, slot_of(pairs, targets))
        classes = logits.shape[1]
        if classes == 1:
            return logits[:, :0].sum(dim=1)
        if self.modulation == "none" and self.pos_weight == 1 and self.class_weights is None:
            values = label_bce(logits, label, self.smoothing)
        else:
            values = self._dense(logits, label)
        return torch.where(pairs.valid, values / classes, torch.zeros_like(values)) * pairs.share

    def _dense(self, logits: Tensor, label: Tensor) -> Tensor:
        hot = torch.arange(logits.shape[1], device=label.device) == label[:, None]
        wanted = hot.to(logits.dtype) * (1 - self.smoothing) + self.smoothing / 2
        weights = _weights("HardScores", self.class_weights, logits)
        positive: float | Tensor = self.pos_weight
        if weights is not None and self.weight_mode == "positive":
            positive = weights * self.pos_weight
        if self.modulation == "none":
            values = bce_with_logits(logits, wanted, positive)
        else:
            form = focal if self.modulation == "focal" else quality_focal
            values = form(logits, wanted, self.gamma, self.alpha, positive)
        if weights is not None and self.weight_mode == "both":
            values = values * weights
        return values.sum(dim=1)


@component
class ExclusiveScores:
    """Cross-entropy of a matched candidate's classes, which exclude one another, weighted by the pair's weight.

    A mean over pairs, not over pairs and classes as in `HardScores`: at equal gain it is about as many times larger as
    there are classes. Silent (zero) for one class. A share `smoothing` of the target is spread over all classes.

    Source: spec/losses E.2; smoothing: Szegedy et al. 2016, arXiv:1512.00567.
    """

    kind: Literal["exclusive_scores"] = "exclusive_scores"
    smoothing: Annotated[float, Field(ge=0, le=1)] = 0.0
    class_weights: ClassWeightVector = None  # factor on a pair's cost by its class; divisors do not change
    weight_mode: WeightMode = "positive"  # both mean the same here
    scope: ClassVar[Literal["pair"]] = "pair"

    def __post_init__(self) -> None:
        _check_smoothing("ExclusiveScores", self.smoothing)

    def __call__(self, preds: Predictions, targets: Targets, pairs: Assignment) -> Float[Tensor, " P"]:
        """Contribution of each pair.

        Raises:
            ConfigError: the predictions' classes may occur together.
            ShapeError: class weights for another number of classes.
        """
        if not preds.exclusive:
            raise ConfigError(
                "ExclusiveScores: expected classes that exclude one another, got predictions with exclusive=False; "
                "use HardScores, or set exclusive to true in the dataset"
            )
        logits, label = preds.logits_at(pairs), targets.labels.flatten().index_select(0, slot_of(pairs, targets))
        if logits.shape[1] == 1:
            return logits[:, :0].sum(dim=1)
        values = functional.cross_entropy(logits, label, reduction="none", label_smoothing=self.smoothing)
        weights = _weights("ExclusiveScores", self.class_weights, logits)
        if weights is not None:
            values = values * weights[label]
        return torch.where(pairs.valid, values, torch.zeros_like(values)) * pairs.share


def _check_smoothing(name: str, smoothing: float) -> None:
    if not 0 <= smoothing <= 1:
        raise ConfigError(f"{name}.smoothing: expected 0 to 1, got {smoothing}")


def _weights(name: str, vector: ClassWeightVector, logits: Tensor) -> Tensor | None:
    if vector is None:
        return None
    if len(vector) != logits.shape[1]:
        raise ShapeError(
            f"{name}.class_weights: expected {logits.shape[1]} numbers, one for each class, got {len(vector)}"
        )
    return constant(vector, logits)
