# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Terms on the class scores of every candidate of a dense head: BCE, softmax, focal, quality focal, varifocal.

Each candidate may be matched once. Its target is the pair's weight at the object's class and 0 elsewhere; the sum over
its classes is divided by the assignment's normalizer. A form is the cost of one entry, `entry_cost`; all else is one
base for all of them.

Class weights, one number for each class (`losses/balance.py` makes them): mode "positive" scales the positive half of
an entry's cost, mode "both" the whole cost of the class. The divisor stays the same.
"""

from typing import ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from boxwright.config import component
from boxwright.errors import ShapeError
from boxwright.losses.balance import WeightMode
from boxwright.losses.factors import EmptyNorm, candidate_factors, divisor
from boxwright.losses.functional import bce_with_logits, focal, quality_focal, varifocal
from boxwright.losses.terms.base import (
    ClassWeighted,
    ClassWeightVector,
    Divisor,
    Scope,
    check_class_weights,
    check_slope,
    class_weights_like,
)
from boxwright.structures import Assignment, Predictions, Targets, at_least_float32


class ScoreForm(ClassWeighted):
    """Base of the forms: contribution of a candidate = sum of its entries' costs / divisor."""

    __slots__ = ()

    empty_norm: EmptyNorm
    scope: ClassVar[Scope] = "candidate"
    divides_by: ClassVar[Divisor] = "assignment"

    def __post_init__(self) -> None:
        name = type(self).__name__
        check_class_weights(name, self.class_weights)
        check_slope(f"{name}.gamma", getattr(self, "gamma", 1.0))

    def __call__(self, preds: Predictions, targets: Targets, pairs: Assignment) -> Float[Tensor, "B A"]:
        """Contribution of each candidate.

        Raises:
            ShapeError: exclusive classes, or class weights for another number of classes.
        """
        self.check(preds)
        z = entries_that_count(preds, targets, pairs)
        wanted, matched = dense_targets(z, targets, pairs)
        factors = ClassFactors.of(self, z)
        costs = factors.whole * self.entry_cost(z, wanted, matched, factors.positive)
        return costs.sum(dim=-1) / divisor(self.empty_norm, preds, pairs)

    def entry_cost(
        self, z: Float[Tensor, "*n"], wanted: Float[Tensor, "*n"], matched: Bool[Tensor, "*n"], positive: float | Tensor
    ) -> Float[Tensor, "*n"]:
        """Cost of entries with logits z: `wanted` is the target, `positive` the weight of the cost's positive half."""
        return bce_with_logits(z, wanted, positive)

    def check(self, preds: Predictions) -> None:
        """Raises when the form does not fit the predictions.

        Raises:
            ShapeError: the classes exclude one another.
        """
        refuse_exclusive(type(self).__name__, preds)


@component
class SoftScores(ScoreForm):
    """Binary cross-entropy of every candidate's classes; a matched one's target at its class is the pair's weight.

    Where classes exclude one another (`Predictions.exclusive`) they and an implicit background with logit 0 share one
    softmax: the cost is log(1 + sum of e^z) - target * z[class], which for one class is the binary cross-entropy.
    There "both" scales the whole cost of the candidates matched to a class, and background keeps 1.

    Source: TOOD, Feng et al. 2021, arXiv:2108.07755. Deviation: no focal factor; as YOLOv8 trains.
    """

    kind: Literal["soft_scores"] = "soft_scores"
    class_weights: ClassWeightVector = None
    weight_mode: WeightMode = "positive"
    # Divisor of a batch whose weights add up to 0: the normalizer, which then is 1, or its number of candidates.
    empty_norm: EmptyNorm = "sum"

    def __call__(self, preds: Predictions, targets: Targets, pairs: Assignment) -> Float[Tensor, "B A"]:
        """Contribution of each candidate.

        Raises:
            ShapeError: class weights for another number of classes.
        """
        if not preds.exclusive:
            return ScoreForm.__call__(self, preds, targets, pairs)
        z = entries_that_count(preds, targets, pairs)
        wanted, matched = dense_targets(z, targets, pairs)
        log_p = functional.pad(z, (0, 1)).log_softmax(dim=-1)  # the last is background
        factors = ClassFactors.of(self, z)
        positive = (factors.positive * wanted * log_p[..., :-1]).sum(dim=-1)
        costs = -positive - (1 - wanted.sum(dim=-1)) * log_p[..., -1]
        costs = costs * (1 + (matched * (factors.whole - 1)).sum(dim=-1))
        return costs / divisor(self.empty_norm, preds, pairs)

    def check(self, preds: Predictions) -> None:
        """Exclusive classes have a form of their own: nothing is refused."""


@component
class FocalScores(ScoreForm):
    """Focal loss of every candidate's classes: entries that are right already count little.

    With `target` "soft" a matched entry's target is the pair's weight, with "hard" it is 1.

    Source: Focal Loss, Lin et al. 2017, arXiv:1708.02002. Deviation: soft targets, and the sum is divided by the sum of
    the weights, which is the number of positives for assigners whose weights are 1.
    """

    kind: Literal["focal_scores"] = "focal_scores"
    gamma: float = 2.0
    alpha: float = 0.25  # share of positive entries; 0 or less leaves the balance out
    target: Literal["soft", "hard"] = "soft"
    class_weights: ClassWeightVector = None
    weight_mode: WeightMode = "positive"
    empty_norm: EmptyNorm = "sum"

    def entry_cost(
        self, z: Float[Tensor, "*n"], wanted: Float[Tensor, "*n"], matched: Bool[Tensor, "*n"], positive: float | Tensor
    ) -> Float[Tensor, "*n"]:
        """(1 - q)^gamma * bce * balance, q the probability given to the target."""
        wanted = matched.to(z.dtype) if self.target == "hard" else wanted
        return focal(z, wanted, self.gamma, self.alpha, positive)


@component
class QualityFocalScores(ScoreForm):
    """Quality focal loss: cross-entropy with the soft target, scaled by the distance to it.

    Source: Generalized Focal Loss, Li et al. 2020, arXiv:2006.04388, eq. 4.
    """

    kind: Literal["quality_focal_scores"] = "quality_focal_scores"
    gamma: float = 2.0
    alpha: float = 0.0  # share of positive entries; 0 or less, as in the paper, leaves the balance out
    class_weights: ClassWeightVector = None
    weight_mode: WeightMode = "positive"
    empty_norm: EmptyNorm = "sum"

    def entry_cost(
        self, z: Float[Tensor, "*n"], wanted: Float[Tensor, "*n"], matched: Bool[Tensor, "*n"], positive: float | Tensor
    ) -> Float[Tensor, "*n"]:
        """|target - p|^gamma * bce * balance."""
        return quality_focal(z, wanted, self.gamma, self.alpha, positive)


@component
class VarifocalScores(ScoreForm):
    """Varifocal loss of a dense head: matched entries weigh as much as their quality, background by alpha * p^gamma.

    Source: VarifocalNet, Zhang et al. 2021, arXiv:2008.13367, eq. 2. Deviation: the quality is the pair's weight (with
    task-aligned assignment as in PP-YOLOE, arXiv:2203.16250); p^gamma is a constant for differentiation only with
    `detach_weight`.
    """

    kind: Literal["varifocal_scores"] = "varifocal_scores"
    alpha: float = 0.75
    gamma: float = 2.0
    detach_weight: bool = False
    class_weights: ClassWeightVector = None
    weight_mode: WeightMode = "positive"
    empty_norm: EmptyNorm = "sum"

    def entry_cost(
        self, z: Float[Tensor, "*n"], wanted: Float[Tensor, "*n"], matched: Bool[Tensor, "*n"], positive: float | Tensor
    ) -> Float[Tensor, "*n"]:
        """(quality where matched, alpha * p^gamma elsewhere) * bce."""
        return varifocal(
            z, wanted, matched, self.alpha, self.gamma, detach_weight=self.detach_weight, pos_weight=positive
        )


class ClassFactors(NamedTuple):
    """Factors by class: on the positive half of an entry's cost, or on all of it; 1 where there are no weights."""

    positive: float | Float[Tensor, " C"]
    whole: float | Float[Tensor, " C"]

    @classmethod
    def of(cls, term: ClassWeighted, z: Float[Tensor, "*n C"]) -> "ClassFactors":
        """The factors of a term for classes with these logits.

        Raises:
            ShapeError: there are not as many weights as classes.
        """
        weights = class_weights_like(term.class_weights, z)
        if weights is None:
            return cls(1.0, 1.0)
        return cls(weights, 1.0) if term.weight_mode == "positive" else cls(1.0, weights)


def entries_that_count(preds: Predictions, targets: Targets, pairs: Assignment) -> Float[Tensor, "B A C"]:
    """Logits in at least float32; 0 in the candidates that cost nothing, which may hold anything (ignore regions)."""
    z = at_least_float32(preds.logits)
    if targets.ignore is None:
        return z
    ignored = candidate_factors(preds, targets, pairs) == 0
    return z.masked_fill(ignored[..., None], 0.0)


def dense_targets(
    z: Float[Tensor, "B A C"], targets: Targets, pairs: Assignment
) -> tuple[Float[Tensor, "B A C"], Bool[Tensor, "B A C"]]:
    """Target of every entry, the pair's weight where it is matched and 0 elsewhere; and which entries are matched."""
    entry = (pairs.image, pairs.anchor, targets.labels[pairs.image, pairs.target])
    weight = torch.where(pairs.valid, pairs.weight, torch.zeros_like(pairs.weight)).to(z.dtype)
    wanted = torch.zeros_like(z).index_put(entry, weight, accumulate=True)
    matched = torch.zeros_like(z).index_put(entry, pairs.valid.to(z.dtype), accumulate=True)
    return wanted, matched > 0


def refuse_exclusive(name: str, preds: Predictions) -> None:
    """Raises for predictions whose classes share a softmax.

    Raises:
        ShapeError: naming the term.
    """
    if preds.exclusive:
        raise ShapeError(f"{name}: expected classes with sigmoid scores, got exclusive ones; use SoftScores for them")
