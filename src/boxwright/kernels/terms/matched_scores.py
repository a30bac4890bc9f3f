# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Class terms of matched candidates: no dense target where costs are linear in it."""

import torch
from jaxtyping import Float
from torch import Tensor

from boxwright.kernels.label_bce import label_bce
from boxwright.kernels.rows import slot_of
from boxwright.losses.terms import matched_scores
from boxwright.structures import Assignment, Predictions, Targets


def hard_scores(
    term: matched_scores.HardScores, preds: Predictions, targets: Targets, pairs: Assignment
) -> Float[Tensor, " P"]:
    """Contribution of each pair."""
    term.check(preds)
    logits, label = preds.logits_at(pairs), targets.labels.flatten().index_select(0, slot_of(pairs, targets))
    classes = logits.shape[1]
    if classes == 1:
        return logits[:, :0].sum(dim=1)
    if term.modulation == "none" and term.pos_weight == 1 and term.class_weights is None:
        values = label_bce(logits, label, term.smoothing)
    else:
        values = term.summed(logits, label)
    return torch.where(pairs.valid, values / classes, torch.zeros_like(values)) * pairs.share
