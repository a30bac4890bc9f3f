# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Class terms of dense heads: what every entry costs as background, corrected at the few matched ones.

The dense target never exists, and the dense gradient is written once, in the memory order of the logits.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from boxwright.kernels.entries import Background, background_and_entries
from boxwright.kernels.softplus import sparse_bce
from boxwright.losses.factors import divisor
from boxwright.losses.terms import scores
from boxwright.losses.terms.base import class_weights_like
from boxwright.structures import Assignment, Predictions, Targets, at_least_float32


def soft_scores(
    term: scores.SoftScores, preds: Predictions, targets: Targets, pairs: Assignment
) -> Float[Tensor, "B A"]:
    """Contribution of each candidate."""
    if preds.exclusive:
        costs = _exclusive(term, preds, targets, pairs)
    elif term.class_weights is None and targets.ignore is None:
        label = targets.labels[pairs.image, pairs.target]
        costs = sparse_bce(preds.logits, pairs.image, pairs.anchor, label, pairs.weight)
    else:
        costs = _costs(term, preds, targets, pairs, Background())
    return costs / divisor(term.empty_norm, preds, pairs)


def focal_scores(
    term: scores.FocalScores, preds: Predictions, targets: Targets, pairs: Assignment
) -> Float[Tensor, "B A"]:
    """Contribution of each candidate."""
    return _balanced(term, preds, targets, pairs)


def quality_focal_scores(
    term: scores.QualityFocalScores, preds: Predictions, targets: Targets, pairs: Assignment
) -> Float[Tensor, "B A"]:
    """Contribution of each candidate."""
    return _balanced(term, preds, targets, pairs)


def varifocal_scores(
    term: scores.VarifocalScores, preds: Predictions, targets: Targets, pairs: Assignment
) -> Float[Tensor, "B A"]:
    """Contribution of each candidate."""
    term.check(preds)
    background = Background("modulated", term.gamma, term.alpha, term.detach_weight)
    return _costs(term, preds, targets, pairs, background) / divisor(term.empty_norm, preds, pairs)


def _balanced(
    term: scores.FocalScores | scores.QualityFocalScores, preds: Predictions, targets: Targets, pairs: Assignment
) -> Tensor:
    term.check(preds)
    background = Background("modulated", term.gamma, 1 - term.alpha if term.alpha > 0 else 1.0)
    return _costs(term, preds, targets, pairs, background) / divisor(term.empty_norm, preds, pairs)


class _EntryWeights(NamedTuple):
    """Class weights as a cost needs them; None where there are none."""

    by_class: Tensor | None  # (C,) of the sum over classes, in mode "both"
    by_pair: Tensor | None  # (P,) of each pair's class

    @classmethod
    def of(cls, term: scores.ScoreForm, preds: Predictions, targets: Targets, pairs: Assignment) -> "_EntryWeights":
        weights = class_weights_like(term.class_weights, at_least_float32(preds.logits[:0]))
        if weights is None:
            return cls(None, None)
        both = weights if term.weight_mode == "both" else None
        return cls(both, weights[targets.labels[pairs.image, pairs.target]])


def _costs(
    term: scores.ScoreForm, preds: Predictions, targets: Targets, pairs: Assignment, background: Background
) -> Tensor:
    """Background cost of every candidate, with that of the matched entries replaced by the form's."""
    weights = _EntryWeights.of(term, preds, targets, pairs)
    costs, entries = background_and_entries(
        preds.logits,
        pairs.image,
        pairs.anchor,
        targets.labels[pairs.image, pairs.target],
        pairs.valid,
        background,
        weights.by_class,
        guard=targets.ignore is not None,
    )
    soft = pairs.weight.to(costs.dtype)
    positive = 1.0 if weights.by_pair is None or term.weight_mode == "both" else weights.by_pair
    change = term.entry_cost(entries, soft, pairs.valid, positive) - background.of(entries)
    if weights.by_pair is not None and term.weight_mode == "both":
        change = weights.by_pair * change
    return _added(costs, change, pairs)


def _exclusive(term: scores.SoftScores, preds: Predictions, targets: Targets, pairs: Assignment) -> Tensor:
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
    weights = _EntryWeights.of(term, preds, targets, pairs)
    if weights.by_pair is not None:
        matched = costs[pairs.image, pairs.anchor]
        gained = soft * (matched - entries) if term.weight_mode == "positive" else matched + change
        change = change + (weights.by_pair - 1) * gained
    return _added(costs, change, pairs)


def _added(costs: Tensor, change: Tensor, pairs: Assignment) -> Tensor:
    """The costs, changed where a candidate is matched."""
    change = torch.where(pairs.valid, change, torch.zeros_like(change))
    return costs.index_put((pairs.image, pairs.anchor), change, accumulate=True)
