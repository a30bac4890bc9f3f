# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Class terms of set prediction, whose soft target is the overlap of the predicted box with its object.

`FocalScores(gamma=1.5, target="hard")` is the third one: it needs no overlap.
"""

from dataclasses import replace
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from boxwright.config import component
from boxwright.losses.balance import WeightMode
from boxwright.losses.functional import bce_with_logits, focal, varifocal
from boxwright.losses.normalized_boxes import matched_boxes, true_boxes
from boxwright.losses.terms.base import (
    ClassWeighted,
    ClassWeightVector,
    Divisor,
    Scope,
    check_class_weights,
    check_slope,
)
from boxwright.losses.terms.scores import ClassFactors, dense_targets, entries_that_count, refuse_exclusive
from boxwright.ops.collective import sum_over_ranks
from boxwright.ops.overlap import paired_overlap
from boxwright.structures import Assignment, Predictions, Targets, at_least_float32


@component
class QueryVarifocalScores(ClassWeighted):
    """Varifocal loss: matched entries weigh as much as their quality, the IoU; background by alpha * p^gamma.

    Quality is a constant for differentiation. A batch without any match (over all ranks) costs focal loss instead, as
    published code does; p^gamma is a constant for differentiation only with `detach_weight`, as in the paper.
    `class_weights`, one number for each class, scale the matched entries ("positive") or the whole class ("both").

    Source: VarifocalNet, Zhang et al. 2021, arXiv:2008.13367, eq. 2; RT-DETR, Zhao et al. 2023, arXiv:2304.08069.
    """

    kind: Literal["query_varifocal_scores"] = "query_varifocal_scores"
    alpha: float = 0.75
    gamma: float = 2.0
    detach_weight: bool = False
    unmatched_alpha: float = 0.25  # of the focal loss of a batch without a match
    unmatched_gamma: float = 1.5
    class_weights: ClassWeightVector = None
    weight_mode: WeightMode = "positive"

    scope: ClassVar[Scope] = "candidate"
    divides_by: ClassVar[Divisor] = "assignment"

    def __post_init__(self) -> None:
        check_class_weights("QueryVarifocalScores", self.class_weights)
        check_slope("QueryVarifocalScores.gamma", self.gamma)
        check_slope("QueryVarifocalScores.unmatched_gamma", self.unmatched_gamma)

    def __call__(self, preds: Predictions, targets: Targets, pairs: Assignment) -> Float[Tensor, "B A"]:
        """Contribution of each candidate.

        Raises:
            ShapeError: exclusive classes, or class weights for another number of classes.
        """
        refuse_exclusive("QueryVarifocalScores", preds)
        z = entries_that_count(preds, targets, pairs)
        quality, matched = dense_targets(z, targets, with_quality(preds, targets, pairs))
        factors = ClassFactors.of(self, z)
        costs = factors.whole * varifocal(
            z,
            quality,
            matched,
            self.alpha,
            self.gamma,
            detach_weight=self.detach_weight,
            pos_weight=factors.positive,
        )
        unmatched = factors.whole * focal(z, torch.zeros_like(z), self.unmatched_gamma, self.unmatched_alpha)
        any_match = sum_over_ranks(pairs.valid.sum()) > 0
        return torch.where(any_match, costs, unmatched).sum(dim=-1) / pairs.normalizer


@component
class QueryScores(ClassWeighted):
    """Binary cross-entropy of every query's classes; a matched one's target at its class is its quality, the IoU.

    The sum is divided by the number of queries, and not by the number of objects: published behaviour, so the gain
    depends on how crowded images are. Quality is a constant for differentiation.
    `class_weights`, one number for each class, scale the matched entries ("positive") or the whole class ("both").

    Source: spec/losses E.9.1 and H.15, as published RT-DETR code trains with its plain option.
    """

    kind: Literal["query_scores"] = "query_scores"
    class_weights: ClassWeightVector = None
    weight_mode: WeightMode = "positive"

    scope: ClassVar[Scope] = "candidate"
    divides_by: ClassVar[Divisor] = "assignment"

    def __post_init__(self) -> None:
        check_class_weights("QueryScores", self.class_weights)

    def __call__(self, preds: Predictions, targets: Targets, pairs: Assignment) -> Float[Tensor, "B A"]:
        """Contribution of each candidate.

        Raises:
            ShapeError: exclusive classes, or class weights for another number of classes.
        """
        refuse_exclusive("QueryScores", preds)
        z = entries_that_count(preds, targets, pairs)
        quality, _ = dense_targets(z, targets, with_quality(preds, targets, pairs))
        factors = ClassFactors.of(self, z)
        costs = factors.whole * bce_with_logits(z, quality, factors.positive)
        return costs.sum(dim=-1) / max(preds.logits.shape[1], 1)


@torch.no_grad()
def with_quality(preds: Predictions, targets: Targets, pairs: Assignment) -> Assignment:
    """The pairs, each with the IoU of its boxes as weight: a constant; 0 where not valid."""
    true = true_boxes(preds, targets, pairs.image, pairs.target)
    iou = paired_overlap(matched_boxes(preds, pairs), true, "iou", "cxcywh")
    iou = iou.to(at_least_float32(preds.logits[:0]).dtype)
    return replace(pairs, weight=torch.where(pairs.valid, iou, torch.zeros_like(iou)))
