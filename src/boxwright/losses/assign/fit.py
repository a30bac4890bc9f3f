# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""What may stand in for the overlap of boxes when an assigner compares candidates with objects."""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from boxwright.losses.assign.scene import Scene
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


def fit_of_runs(
    fit: Fit, preds: Predictions, targets: Targets, scene: Scene, owner: Tensor, cell: Tensor, overlap: Tensor
) -> Tensor:
    """The fit of the pairs of some runs."""
    image = torch.div(cell, scene.num_anchors, rounding_mode="floor")
    target = scene.slot.index_select(0, owner).expand_as(cell)
    return fit(preds, targets, image, cell - image * scene.num_anchors, target, overlap).clamp(min=0)


def fit_of_shortlist(
    fit: Fit, preds: Predictions, targets: Targets, scene: Scene, pair: Tensor, overlap: Tensor, topk: int
) -> Tensor:
    """All overlaps (RUN_CELLS, R), with the fit at the given pairs: each object's best `topk`, image by image."""
    cell, target = scene.cell_of(pair), scene.slot.index_select(0, scene.owner_of(pair))
    known, first = overlap.view(-1).index_select(0, pair), 0
    found = [known[:0]]
    for index, cells in enumerate(scene.candidates.cells):
        rows = slice(first, first := first + sum(min(count, topk) for count in cells))
        image = torch.full_like(target[rows], index)
        anchor = cell[rows] - index * scene.num_anchors
        found.append(fit(preds, targets, image, anchor, target[rows], known[rows]))
    outside = overlap * getattr(fit, "outside", 1.0)
    return outside.view(-1).index_copy(0, pair, torch.cat(found).to(overlap.dtype).clamp(min=0)).view(overlap.shape)
