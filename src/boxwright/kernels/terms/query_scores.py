# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Class terms of set prediction: background of every entry, corrected at the matched ones."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from boxwright.kernels.entries import Background, background_and_entries
from boxwright.losses.functional import bce_with_logits
from boxwright.losses.terms.base import class_weights_like
from boxwright.losses.terms.query_scores import QueryScores, QueryVarifocalScores, with_quality
from boxwright.losses.terms.scores import refuse_exclusive
from boxwright.ops.collective import sum_over_ranks
from boxwright.structures import Assignment, Predictions, Targets, at_least_float32


def query_varifocal_scores(
    term: QueryVarifocalScores, preds: Predictions, targets: Targets, pairs: Assignment
) -> Float[Tensor, "B A"]:
    """Contribution of each candidate."""
    background = Background("modulated", term.gamma, term.alpha, term.detach_weight)
    costs, entries, weights = _costs(term, preds, targets, pairs, background)
    quality = with_quality(preds, targets, pairs).weight
    change = quality * bce_with_logits(entries, quality, weights.positive) - background.of(entries)
    costs = _changed(costs, change * weights.whole, pairs)
    return _or_focal(term, costs, preds, targets, pairs) / pairs.normalizer


def query_scores(term: QueryScores, preds: Predictions, targets: Targets, pairs: Assignment) -> Float[Tensor, "B A"]:
    """Contribution of each candidate."""
    costs, entries, weights = _costs(term, preds, targets, pairs, Background())
    quality = with_quality(preds, targets, pairs).weight
    change = bce_with_logits(entries, quality, weights.positive) - Background().of(entries)
    return _changed(costs, change * weights.whole, pairs) / max(preds.logits.shape[1], 1)


def _or_focal(
    term: QueryVarifocalScores, costs: Tensor, preds: Predictions, targets: Targets, pairs: Assignment
) -> Tensor:
    """The costs if any rank has a match, otherwise those of focal loss: nobody asks the device which it is."""
    any_match = sum_over_ranks(pairs.valid.sum()) > 0
    scale = 1 - term.unmatched_alpha if term.unmatched_alpha > 0 else 1.0
    if term.gamma == term.unmatched_gamma and term.alpha > 0 and not term.detach_weight:
        # Without a match both are background alone, which is linear in its scale.
        return torch.where(any_match, costs, costs * (scale / term.alpha))
    background = Background("modulated", term.unmatched_gamma, scale)
    return torch.where(any_match, costs, _costs(term, preds, targets, pairs, background)[0])


class _PairWeights(NamedTuple):
    """Class weights of the pairs: on the positive half of an entry's cost, or on all of it; 1 where there are none."""

    positive: Tensor
    whole: Tensor


def _costs(
    term: QueryVarifocalScores | QueryScores,
    preds: Predictions,
    targets: Targets,
    pairs: Assignment,
    background: Background,
) -> tuple[Tensor, Tensor, _PairWeights]:
    """Background cost of every candidate, the logits of the matched entries, and their class weights."""
    refuse_exclusive(type(term).__name__, preds)
    weights = class_weights_like(term.class_weights, at_least_float32(preds.logits[:0]))
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
    by_pair = ones if weights is None else weights[label]
    return (
        costs,
        entries,
        _PairWeights(by_pair, ones) if term.weight_mode == "positive" else _PairWeights(ones, by_pair),
    )


def _changed(costs: Tensor, change: Tensor, pairs: Assignment) -> Tensor:
    """The costs, changed where a candidate is matched."""
    change = torch.where(pairs.valid, change, torch.zeros_like(change))
    return costs.index_put((pairs.image, pairs.anchor), change.to(costs.dtype), accumulate=True)
