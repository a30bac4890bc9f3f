# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Terms on the class scores of every candidate."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor

from boxwright.config import component
from boxwright.losses.functional import sparse_bce
from boxwright.structures import Assignment, Predictions, Targets


@component
class SoftScores:
    """Binary cross-entropy of every candidate's classes; a matched one's target at its class is the pair's weight.

    Each candidate may be matched once. Its sum over classes is divided by the assignment's normalizer.

    Source: TOOD, Feng et al. 2021, arXiv:2108.07755. Deviation: no focal factor; as YOLOv8 trains.
    """

    kind: Literal["soft_scores"] = "soft_scores"

    def __call__(self, preds: Predictions, targets: Targets, pairs: Assignment) -> Float[Tensor, "B A"]:
        """Contribution of each candidate."""
        label = targets.labels[pairs.image, pairs.target]
        return sparse_bce(preds.logits, pairs.image, pairs.anchor, label, pairs.weight) / pairs.normalizer
