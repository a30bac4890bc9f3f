# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Anchor-ratio assignment with all claims laid out on the host before the step: predictions play no part in them."""

import torch

from boxwright.errors import ShapeError
from boxwright.losses.assign.anchor_ratio import AnchorRatio
from boxwright.losses.layout.prior_matches import check_prior_matches, lay_out_prior_matches, rows_of_grid
from boxwright.ops.collective import sum_over_ranks, world_size
from boxwright.structures import Assignment, Grid, Predictions, Targets, at_least_float32


def prepare(assigner: AnchorRatio, targets: Targets, grid: Grid) -> Targets:
    """The targets with their claims laid out on the host; unchanged where that was done for the grid's levels.

    Give it the grid of the whole pyramid: predictions of single levels then find their rows in it.

    Raises:
        ShapeError: the grid has no priors, or the targets were prepared by an assigner with other limits.
    """
    done = targets.prior_matches
    if done is not None and (done.ratio, done.bias) != (assigner.ratio, assigner.bias):
        raise ShapeError(
            f"Targets.prior_matches: expected a layout with ratio {assigner.ratio} and bias {assigner.bias}, "
            f"got {done.ratio} and {done.bias}; prepare the targets for each criterion of its own"
        )
    if done is not None and rows_of_grid(done, grid) is not None:
        return targets
    matches = lay_out_prior_matches(targets, grid, assigner.ratio, assigner.bias)
    return targets.with_prepared(prior_matches=matches.to(targets.boxes.device))


@torch.no_grad()
def anchor_ratio(assigner: AnchorRatio, preds: Predictions, targets: Targets) -> Assignment:
    """Pairs of the predictions' levels; levels that the targets were not prepared for cost one host sync.

    Raises:
        ShapeError: the targets were prepared for other maps, priors, slots or classes.
    """
    grid = preds.cells
    matches = prepare(assigner, targets, grid).prior_matches
    assert matches is not None
    check_prior_matches(matches, targets, grid, preds.logits.shape[-1])
    of_grid = rows_of_grid(matches, grid)
    assert of_grid is not None
    rows, first, level_rows = of_grid
    image, anchor, target = (part[rows] for part in (matches.image, matches.anchor, matches.target))
    like = at_least_float32(preds.logits[:0])
    if world_size() == 1:
        shares = [like.new_full((count,), 1 / max(count, 1)) for count in level_rows]
    else:
        counts = sum_over_ranks(torch.stack([like.new_full((), float(count)) for count in level_rows])).clamp(min=1)
        shares = [one.reciprocal().expand(count) for one, count in zip(counts, level_rows, strict=True)]
    return Assignment(
        image=image,
        anchor=anchor - first,
        target=target,
        valid=torch.ones_like(image, dtype=torch.bool),
        weight=torch.cat(shares),
        normalizer=like.new_ones(()),
        all_valid=True,
    )
