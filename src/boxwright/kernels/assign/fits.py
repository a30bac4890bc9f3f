# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""What may stand in for the overlap of boxes, asked for the pairs of a scene."""

import torch
from torch import Tensor

from boxwright.kernels.assign.scene import Scene
from boxwright.losses.assign.fit import Fit
from boxwright.structures import Predictions, Targets


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
