# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""One prediction of a batch with its pairs and shares: what the tables of an inspection are made of."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from boxwright.inspector.shares import Shares
from boxwright.structures import Assignment, Predictions


@dataclass(frozen=True, slots=True)
class ProbedPrediction:
    """One prediction of a batch and what the criterion made of it."""

    label: str  # "main", "decoder3"
    preds: Predictions
    pairs: Assignment
    shares: Mapping[str, Shares]  # by full item name, "main/box"
    gradients: Tensor | None  # (P,) length of the total's gradient at the candidate of every pair
