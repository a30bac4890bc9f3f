# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Terms on the class scores of matched candidates only, for heads whose objectness tells the background."""

from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float, Int64
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from boxwright.config import component
from boxwright.errors import ConfigError
from boxwright.losses.balance import WeightMode
from boxwright.losses.functional import bce_with_logits, focal, quality_focal
from boxwright.losses.terms.base import (
    ClassWeighted,
    ClassWeightVector,
    Divisor,
    Scope,
    check_slope,
    class_weights_like,
)
from boxwright.structures import Assignment, Predictions, Targets

Modulation = Literal["none", "focal", "quality_focal"]


@component
class HardScores(ClassWeighted):
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
    scope: ClassVar[Scope] = "pair"
    divides_by: ClassVar[Divisor] = "assignment"

    def __post_init__(self) -> None:
        _check_smoothing("HardScores", self.smoothing)
        check_slope("HardScores.gamma", self.gamma)

    def __call__(self, preds: Predictions, targets: Targets, pairs: Assignment) -> Float[Tensor, " P"]:
        """Contribution of each pair.

        Raises:
            ConfigError: the predictions' classes exclude one another.
            ShapeError: class weights for another number of classes.
        """
        self.check(preds)
        logits, label = preds.logits_at(pairs), targets.labels[pairs.image, pairs.target]
        classes = logits.shape[1]
        if classes == 1:
            return logits[:, :0].sum(dim=1)
        values = self.summed(logits, label) / classes
        return torch.where(pairs.valid, values, torch.zeros_like(values)) * pairs.share

    def summed(self, logits: Float[Tensor, "P C"], label: Int64[Tensor, " P"]) -> Float[Tensor, " P"]:
        """Cost of each row of logits with the given label, summed over its classes.

        Raises:
            ShapeError: class weights for another number of classes.
        """
        hot = torch.arange(logits.shape[1], device=label.device) == label[:, None]
        wanted = hot.to(logits.dtype) * (1 - self.smoothing) + self.smoothing / 2
        weights = class_weights_like(self.class_weights, logits, "HardScores.class_weights")
        positive: float | Tensor = self.pos_weight
        if weights is not None and self.weight_mode == "positive":
            positive = weights * self.pos_weight
        if self.modulation == "none":
            costs = bce_with_logits(logits, wanted, positive)
        else:
            form = focal if self.modulation == "focal" else quality_focal
            costs = form(logits, wanted, self.gamma, self.alpha, positive)
        if weights is not None and self.weight_mode == "both":
            costs = costs * weights
        return costs.sum(dim=1)

    def check(self, preds: Predictions) -> None:
        """Raises when the term does not fit the predictions.

        Raises:
            ConfigError: the predictions' classes exclude one another.
        """
        if preds.exclusive:
            raise ConfigError(
                "HardScores: expected classes that may occur together, got predictions with exclusive=True; "
                "use ExclusiveScores, or set exclusive to false in the dataset"
            )


@component
class ExclusiveScores(ClassWeighted):
    """Cross-entropy of a matched candidate's classes, which exclude one another, weighted by the pair's weight.

    A mean over pairs, not over pairs and classes as in `HardScores`: at equal gain it is about as many times larger as
    there are classes. Silent (zero) for one class. A share `smoothing` of the target is spread over all classes.

    Source: spec/losses E.2; smoothing: Szegedy et al. 2016, arXiv:1512.00567.
    """

    kind: Literal["exclusive_scores"] = "exclusive_scores"
    smoothing: Annotated[float, Field(ge=0, le=1)] = 0.0
    class_weights: ClassWeightVector = None  # factor on a pair's cost by its class; divisors do not change
    weight_mode: WeightMode = "positive"  # both mean the same here
    scope: ClassVar[Scope] = "pair"
    divides_by: ClassVar[Divisor] = "assignment"

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
        logits, label = preds.logits_at(pairs), targets.labels[pairs.image, pairs.target]
        if logits.shape[1] == 1:
            return logits[:, :0].sum(dim=1)
        values = functional.cross_entropy(logits, label, reduction="none", label_smoothing=self.smoothing)
        weights = class_weights_like(self.class_weights, logits, "ExclusiveScores.class_weights")
        if weights is not None:
            values = values * weights[label]
        return torch.where(pairs.valid, values, torch.zeros_like(values)) * pairs.share


def _check_smoothing(name: str, smoothing: float) -> None:
    if not 0 <= smoothing <= 1:
        raise ConfigError(f"{name}.smoothing: expected 0 to 1, got {smoothing}")
