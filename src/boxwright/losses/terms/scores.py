# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Terms on the class scores of every candidate of a dense head: BCE, softmax, focal, quality focal, varifocal.

Each candidate may be matched once. Its target is the pair's weight at the object's class and 0 elsewhere; the sum over
its classes is divided by the assignment's normalizer.

Class weights, one number for each class (`losses/balance.py` makes them): mode "positive" scales the positive half of
an entry's cost, mode "both" the whole cost of the class. The divisor stays the same.
"""

import math
from collections.abc import Callable
from typing import ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from boxwright.config import component
from boxwright.errors import ConfigError, ShapeError
from boxwright.kernels.entries import Background, background_and_entries
from boxwright.losses.balance import WeightMode
from boxwright.losses.functional import bce_with_logits, focal, quality_focal, sparse_bce
from boxwright.ops.collective import sum_over_ranks
from boxwright.ops.constants import constant
from boxwright.structures import Assignment, Predictions, Targets, at_least_float32

EmptyNorm = Literal["sum", "anchors"]
ClassWeightVector = tuple[float, ...] | None


@component
class SoftScores:
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

    scope: ClassVar[Literal["candidate"]] = "candidate"

    def __post_init__(self) -> None:
        check_class_weights("SoftScores", self.class_weights)

    def __call__(self, preds: Predictions, targets: Targets, pairs: Assignment) -> Float[Tensor, "B A"]:
        """Contribution of each candidate.

        Raises:
            ShapeError: class weights for another number of classes.
        """
        if preds.exclusive:
            costs = self._exclusive(preds, targets, pairs)
        elif self.class_weights is None and targets.ignore is None:
            label = targets.labels[pairs.image, pairs.target]
            costs = sparse_bce(preds.logits, pairs.image, pairs.anchor, label, pairs.weight)
        else:
            weights = _Weights.of(self.class_weights, self.weight_mode, preds, targets, pairs)
            costs = _class_costs(preds, targets, pairs, weights, Background(), bce_with_logits)
        return costs / _divisor(self.empty_norm, preds, pairs)

    def _exclusive(self, preds: Predictions, targets: Targets, pairs: Assignment) -> Tensor:
        costs, entries = background_and_entries(
            preds.logits,
            pairs.image,
            pairs.anchor,
            targets.labels[pairs.image, pairs.target],
            pairs.valid,
            Background("exclusive"),
            guard=targets.ignore is not None,
        )
        soft = pairs.weight.to(costs.dtype)
        change = -soft * entries
        weights = _Weights.of(self.class_weights, self.weight_mode, preds, targets, pairs)
        if weights.of_pairs is not None:
            matched = costs[pairs.image, pairs.anchor]
            gained = soft * (matched - entries) if self.weight_mode == "positive" else matched + change
            change = change + (weights.of_pairs - 1) * gained
        return _added(costs, change, pairs)


@component
class FocalScores:
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

    scope: ClassVar[Literal["candidate"]] = "candidate"

    def __post_init__(self) -> None:
        check_class_weights("FocalScores", self.class_weights)
        _check_gamma("FocalScores", self.gamma)

    def __call__(self, preds: Predictions, targets: Targets, pairs: Assignment) -> Float[Tensor, "B A"]:
        """Contribution of each candidate.

        Raises:
            ShapeError: exclusive classes, or class weights for another number of classes.
        """
        _refuse_exclusive("FocalScores", preds)

        def cost(z: Tensor, soft: Tensor, positive: float | Tensor) -> Tensor:
            return focal(z, soft, self.gamma, self.alpha, positive)

        background = Background("modulated", self.gamma, 1 - self.alpha if self.alpha > 0 else 1.0)
        weights = _Weights.of(self.class_weights, self.weight_mode, preds, targets, pairs)
        costs = _class_costs(preds, targets, pairs, weights, background, cost, hard=self.target == "hard")
        return costs / _divisor(self.empty_norm, preds, pairs)


@component
class QualityFocalScores:
    """Quality focal loss: cross-entropy with the soft target, scaled by the distance to it.

    Source: Generalized Focal Loss, Li et al. 2020, arXiv:2006.04388, eq. 4.
    """

    kind: Literal["quality_focal_scores"] = "quality_focal_scores"
    gamma: float = 2.0
    alpha: float = 0.0  # share of positive entries; 0 or less, as in the paper, leaves the balance out
    class_weights: ClassWeightVector = None
    weight_mode: WeightMode = "positive"
    empty_norm: EmptyNorm = "sum"

    scope: ClassVar[Literal["candidate"]] = "candidate"

    def __post_init__(self) -> None:
        check_class_weights("QualityFocalScores", self.class_weights)
        _check_gamma("QualityFocalScores", self.gamma)

    def __call__(self, preds: Predictions, targets: Targets, pairs: Assignment) -> Float[Tensor, "B A"]:
        """Contribution of each candidate.

        Raises:
            ShapeError: exclusive classes, or class weights for another number of classes.
        """
        _refuse_exclusive("QualityFocalScores", preds)

        def cost(z: Tensor, soft: Tensor, positive: float | Tensor) -> Tensor:
            return quality_focal(z, soft, self.gamma, self.alpha, positive)

        background = Background("modulated", self.gamma, 1 - self.alpha if self.alpha > 0 else 1.0)
        weights = _Weights.of(self.class_weights, self.weight_mode, preds, targets, pairs)
        costs = _class_costs(preds, targets, pairs, weights, background, cost)
        return costs / _divisor(self.empty_norm, preds, pairs)


@component
class VarifocalScores:
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

    scope: ClassVar[Literal["candidate"]] = "candidate"

    def __post_init__(self) -> None:
        check_class_weights("VarifocalScores", self.class_weights)
        _check_gamma("VarifocalScores", self.gamma)

    def __call__(self, preds: Predictions, targets: Targets, pairs: Assignment) -> Float[Tensor, "B A"]:
        """Contribution of each candidate.

        Raises:
            ShapeError: exclusive classes, or class weights for another number of classes.
        """
        _refuse_exclusive("VarifocalScores", preds)

        def cost(z: Tensor, soft: Tensor, positive: float | Tensor) -> Tensor:
            return soft * bce_with_logits(z, soft, positive)

        background = Background("modulated", self.gamma, self.alpha, self.detach_weight)
        weights = _Weights.of(self.class_weights, self.weight_mode, preds, targets, pairs)
        costs = _class_costs(preds, targets, pairs, weights, background, cost)
        return costs / _divisor(self.empty_norm, preds, pairs)


class _Weights(NamedTuple):
    """Class weights as a cost needs them; None where there are none."""

    of_classes: Tensor | None  # (C,) of the sum over classes, in mode "both"
    of_pairs: Tensor | None  # (P,) of each pair's class
    mode: WeightMode

    @classmethod
    def of(
        cls,
        vector: ClassWeightVector,
        mode: WeightMode,
        preds: Predictions,
        targets: Targets,
        pairs: Assignment,
    ) -> "_Weights":
        if vector is None:
            return cls(None, None, mode)
        classes = preds.logits.shape[-1]
        if len(vector) != classes:
            raise ShapeError(f"class_weights: expected {classes} numbers, one for each class, got {len(vector)}")
        weights = constant(vector, at_least_float32(preds.logits[:0]))
        return cls(weights if mode == "both" else None, weights[targets.labels[pairs.image, pairs.target]], mode)


def _class_costs(
    preds: Predictions,
    targets: Targets,
    pairs: Assignment,
    weights: _Weights,
    background: Background,
    cost: Callable[[Tensor, Tensor, float | Tensor], Tensor],
    *,
    hard: bool = False,
) -> Tensor:
    """Background cost of every candidate, with that of the matched entries replaced by cost(logit, target, w+)."""
    costs, entries = background_and_entries(
        preds.logits,
        pairs.image,
        pairs.anchor,
        targets.labels[pairs.image, pairs.target],
        pairs.valid,
        background,
        weights.of_classes,
        guard=targets.ignore is not None,
    )
    soft = (pairs.valid if hard else pairs.weight).to(costs.dtype)
    positive = 1.0 if weights.of_pairs is None or weights.mode == "both" else weights.of_pairs
    change = cost(entries, soft, positive) - background.of(entries)
    if weights.of_pairs is not None and weights.mode == "both":
        change = weights.of_pairs * change
    return _added(costs, change, pairs)


def _added(costs: Tensor, change: Tensor, pairs: Assignment) -> Tensor:
    """The costs, changed where a candidate is matched."""
    change = torch.where(pairs.valid, change, torch.zeros_like(change))
    return costs.index_put((pairs.image, pairs.anchor), change, accumulate=True)


def _divisor(empty_norm: EmptyNorm, preds: Predictions, pairs: Assignment) -> Tensor:
    if empty_norm == "sum":
        return pairs.normalizer
    batch, anchors = preds.logits.shape[:2]
    held = torch.stack((pairs.weight.sum(), pairs.weight.new_full((), float(batch * anchors))))
    weight, candidates = sum_over_ranks(held).unbind()
    return torch.where(weight == 0, candidates, pairs.normalizer)


def check_class_weights(name: str, vector: ClassWeightVector) -> None:
    """Raises when a number is negative or not finite.

    Raises:
        ConfigError: naming the term.
    """
    wrong = [value for value in vector or () if not (math.isfinite(value) and value >= 0)]
    if wrong:
        raise ConfigError(f"{name}.class_weights: expected numbers of at least 0, got {wrong[0]}")


def _check_gamma(name: str, gamma: float) -> None:
    if not gamma >= 1:
        raise ConfigError(f"{name}.gamma: expected at least 1 (below, the slope has no bound), got {gamma}")


def _refuse_exclusive(name: str, preds: Predictions) -> None:
    if preds.exclusive:
        raise ShapeError(f"{name}: expected classes with sigmoid scores, got exclusive ones; use SoftScores for them")
