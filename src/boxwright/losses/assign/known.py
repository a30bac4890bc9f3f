# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Pairs that are fixed by construction: denoising queries know which object they were made from."""

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from boxwright.config import component
from boxwright.errors import ShapeError
from boxwright.ops.collective import sum_over_ranks
from boxwright.structures import Assignment, Predictions, Targets


@component
class Known:
    """The pairs that the predictions bring along; the normalizer is their number over all ranks, at least 1.

    Every rank has to bring predictions of these roles, if need be with 0 candidates and pairs.

    Source: DN-DETR, Li et al. 2022, arXiv:2203.01305.
    """

    kind: Literal["known"] = "known"

    @torch.no_grad()
    def __call__(self, preds: Predictions, targets: Targets) -> Assignment:
        """`Predictions.known`.

        Raises:
            ShapeError: the predictions know no pairs.
        """
        if preds.known is None:
            raise ShapeError(
                f"Predictions.known: expected the pairs of role '{preds.role}', got None; "
                "`Known` is for queries that were made from objects"
            )
        return replace(preds.known, normalizer=sum_over_ranks(_count(preds.known)).clamp(min=1))


def _count(pairs: Assignment) -> Tensor:
    return torch.where(pairs.valid, pairs.weight, torch.zeros_like(pairs.weight)).sum()
