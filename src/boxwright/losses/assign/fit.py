# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""What may stand in for the overlap of boxes when an assigner compares candidates with objects."""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from boxwright.structures import Predictions, Targets


@runtime_checkable  # the tests' run-time checks ask for it
class Fit(Protocol):
    """How well candidates fit objects, in [0, 1]; 0 or less for a pair that may not match.

    Called without gradient for pairs of image, anchor and target slot, tensors of one shape, with their overlap, which
    is at least 0. A shape may be empty.

    Two optional class variables ask for fewer pairs. `shortlist` = n: only each object's n * topk best pairs by the
    metric of the plain overlap, in one call for each image. `outside`: the factor on the overlap of all others (1
    without it).
    """

    def __call__(
        self,
        preds: Predictions,
        targets: Targets,
        image: Int64[Tensor, "*p"],
        anchor: Int64[Tensor, "*p"],
        target: Int64[Tensor, "*p"],
        overlap: Float[Tensor, "*p"],
    ) -> Float[Tensor, "*p"]:
        """The fit of each pair."""
        ...


def shortlist_of(fit: Fit | None) -> int | None:
    """How many times topk pairs of each object the fit asks for; None for every pair, or without a fit."""
    return None if fit is None else getattr(fit, "shortlist", None)


def fitted(
    fit: Fit, preds: Predictions, targets: Targets, image: int, compared: Bool[Tensor, "M A"],
    overlap: Float[Tensor, "M A"],
) -> Float[Tensor, "M A"]:  # fmt: skip
    """Overlaps of an image with the fit of the compared pairs in their place; of the others, what the fit leaves."""
    target, anchor = compared.nonzero(as_tuple=True)
    found = fit(preds, targets, torch.full_like(target, image), anchor, target, overlap[compared])
    return (overlap * getattr(fit, "outside", 1.0)).index_put((target, anchor), found.to(overlap.dtype).clamp(min=0))
