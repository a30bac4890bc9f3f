# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Class terms of set prediction, whose soft target is the overlap of the predicted box with its object.

`FocalScores(gamma=1.5, target="hard")` is the third one: it needs no overlap.
"""

from typing import ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from boxwright.config import component
from boxwright.errors import ConfigError, ShapeError
from boxwright.kernels.entries import Background, background_and_entries
from boxwright.losses.balance import WeightMode
from boxwright.losses.functional import bce_with_logits
from boxwright.losses.normalized_boxes import matched_boxes, true_boxes
from boxwright.losses.terms.scores import ClassWeightVector, check_class_weights
from boxwright.ops.collective import sum_over_ranks
from boxwright.ops.constants import constant
from boxwright.ops.overlap import paired_overlap
from boxwright.structures import Assignment, Predictions, Targets, at_least_float32


@component
class QueryVarifocalScores:
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

    scope: ClassVar[Literal["candidate"]] = "candidate"

    def __post_init__(self) -> None:
        check_class_weights("QueryVarifocalScores", self.class_weights)
        for name in ("gamma", "unmatched_gamma"):
            if not getattr(self, name) >= 1:
                raise ConfigError(
                    f"QueryVarifocalScores.{name}: expected at least 1 (below, the slope has no bound), "
                    f"got {getattr(self, name)}"
                )

    def __call__(self, preds: Predictions, targets: Targets, pairs: Assignment) -> Float[Tensor, "B A"]:
        """Contribution of each candidate.

        Raises:
            ShapeError: exclusive classes, or class weights for another number of classes.
        """
        background = Background("modulated", self.gamma, self.alpha, self.detach_weight)
        costs, entries, weights = _costs(self, preds, targets, pairs, background)
        quality = _quality(preds, targets, pairs, entries)
        change = quality * bce_with_logits(entries, quality, weights.positive) - background.of(entries)
        costs = _changed(costs, change * weights.whole, pairs)
        return self._or_focal(costs, preds, targets, pairs) / pairs.normalizer

    def _or_focal(self, costs: Tensor, preds: Predictions, targets: Targets, pairs: Assignment) -> Tensor:
        """The costs if any rank has a match, otherwise those of focal loss: nobody asks the device which it is."""
        any_match = sum_over_ranks(pairs.valid.sum()) > 0
        scale = 1 - self.unmatched_alpha if self.unmatched_alpha > 0 else 1.0
        if self.gamma == self.unmatched_gamma and self.alpha > 0 and not self.detach_weight:
            # Without a match both are background alone, which is linear in its scale.
            return torch.where(any_match, costs, costs * (scale / self.alpha))
        background = Background("modulated", self.unmatched_gamma, scale)
        return torch.where(any_match, costs, _costs(self, preds, targets, pairs, background)[0])


@component
class QueryScores:
    """Binary cross-entropy of every query's classes; a matched one's target at its class is its quality, the IoU.

    The sum is divided by the number of queries, and not by the number of objects: published behaviour, so the gain
    depends on how crowded images are. Quality is a constant for differentiation.
    `class_weights`, one number for each class, scale the matched entries ("positive") or the whole class ("both").

    Source: spec/losses E.9.1 and H.15, as published RT-DETR code trains with its plain option.
    """

    kind: Literal["query_scores"] = "query_scores"
    class_weights: ClassWeightVector = None
    weight_mode: WeightMode = "positive"

    scope: ClassVar[Literal["candidate"]] = "candidate"

    def __post_init__(self) -> None:
        check_class_weights("QueryScores", self.class_weights)

    def __call__(self, preds: Predictions, targets: Targets, pairs: Assignment) -> Float[Tensor, "B A"]:
        """Contribution of each candidate.

        Raises:
            ShapeError: exclusive classes, or class weights for another number of classes.
        """
        costs, entries, weights = _costs(self, preds, targets, pairs, Background())
        quality = _quality(preds, targets, pairs, entries)
        change = bce_with_logits(entries, quality, weights.positive) - Background().of(entries)
        return _changed(costs, change * weights.whole, pairs) / max(preds.logits.shape[1], 1)


class _Weights(NamedTuple):
    """Class weights of the pairs: on the positive half of an entry's cost, or on all of it; 1 where there are none."""

    positive: Tensor
    whole: Tensor


def _costs(
    term: QueryVarifocalScores | QueryScores,
    preds: Predictions,
    targets: Targets,
    pairs: Assignment,
    background: Background,
) -> tuple[Tensor, Tensor, _Weights]:
    """Background cost of every candidate, the logits of the matched entries, and their class weights."""
    if preds.exclusive:
        raise ShapeError(
            f"{type(term).__name__}: expected classes with sigmoid scores, got exclusive ones; use SoftScores for them"
        )
    classes, vector = preds.logits.shape[-1], term.class_weights
    if vector is not None and len(vector) != classes:
        raise ShapeError(f"class_weights: expected {classes} numbers, one for each class, got {len(vector)}")
    weights = None if vector is None else constant(vector, at_least_float32(preds.logits[:0]))
    label = targets.labels[pairs.image, pairs.target]
    costs, entries = background_and_entries(
        preds.logits,
        pairs.image,
        pairs.anchor,
        label,
        pairs.valid,
        background,
        weights if term.weight_mode == "both" else None,
        guard=targets.ignore is not None,
    )
    ones = torch.ones_like(entries)
    of_pairs = ones if weights is None else weights[label]
    return costs, entries, _Weights(of_pairs, ones) if term.weight_mode == "positive" else _Weights(ones, of_pairs)


@torch.no_grad()
def _quality(preds: Predictions, targets: Targets, pairs: Assignment, like: Tensor) -> Tensor:
    """IoU of every pair, a constant; 0 where not valid."""
    true = true_boxes(preds, targets, pairs.image, pairs.target)
    iou = paired_overlap(matched_boxes(preds, pairs), true, "iou", "cxcywh").to(like.dtype)
    return torch.where(pairs.valid, iou, torch.zeros_like(iou))


def _changed(costs: Tensor, change: Tensor, pairs: Assignment) -> Tensor:
    """The costs, changed where a candidate is matched."""
    change = torch.where(pairs.valid, change, torch.zeros_like(change))
    return costs.index_put((pairs.image, pairs.anchor), change.to(costs.dtype), accumulate=True)
