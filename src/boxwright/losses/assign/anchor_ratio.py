# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Anchor-ratio assignment: each object takes every prior of similar size in its cell and the nearest two neighbours."""

from dataclasses import replace
from typing import Annotated, Literal

import torch
from pydantic import Field

from boxwright.config import component
from boxwright.errors import ConfigError, ShapeError
from boxwright.losses.assign.trace import Places, Trace, build_trace, join_places
from boxwright.losses.layout.prior_matches import check_prior_matches, lay_out_prior_matches, rows_of_grid
from boxwright.ops.collective import sum_over_ranks, world_size
from boxwright.structures import Assignment, Grid, Predictions, Targets, at_least_float32


@component
class AnchorRatio:
    """Each object takes all priors (anchors) whose sides differ from its own by less than the factor `ratio`.

    It takes them in the cell that holds its centre and in the neighbours whose border is nearer than `bias` cells.
    Nothing is exclusive: an object may hold many candidates, on several levels, and a candidate may be held by several
    objects, even twice by the same one when its centre lies on a border. Predictions play no part, so all of it is
    worked out on the host before the step.

    The weight of a pair is 1 / (pairs of its level over all ranks): sums of weighted values are means per level, added
    up over levels. Predictions may hold the whole pyramid or one level of it.

    Source: spec/losses C.1, as YOLOv5 trains. The order of pairs is the published one: level, direction, prior, object.
    """

    kind: Literal["anchor_ratio"] = "anchor_ratio"
    ratio: Annotated[float, Field(gt=1)] = 4.0
    bias: Annotated[float, Field(ge=0, le=1)] = 0.5  # cells

    def __post_init__(self) -> None:
        if not self.ratio > 1:
            raise ConfigError(f"AnchorRatio.ratio: expected more than 1, got {self.ratio}")
        if not 0 <= self.bias <= 1:
            raise ConfigError(f"AnchorRatio.bias: expected 0 to 1 cells, got {self.bias}")

    def prepare(self, targets: Targets, grid: Grid) -> Targets:
        """The targets with their claims laid out on the host; unchanged where that was done for the grid's levels.

        Give it the grid of the whole pyramid: predictions of single levels then find their rows in it.

        Raises:
            ShapeError: the grid has no priors, or the targets were prepared by an assigner with other limits.
        """
        done = targets.prior_matches
        if done is not None and (done.ratio, done.bias) != (self.ratio, self.bias):
            raise ShapeError(
                f"Targets.prior_matches: expected a layout with ratio {self.ratio} and bias {self.bias}, "
                f"got {done.ratio} and {done.bias}; prepare the targets for each criterion of its own"
            )
        if done is not None and rows_of_grid(done, grid) is not None:
            return targets
        found = lay_out_prior_matches(targets, grid, self.ratio, self.bias)
        return replace(targets, prior_matches=found.to(targets.boxes.device))

    @torch.no_grad()
    def trace(self, preds: Predictions, targets: Targets, pairs: Assignment) -> Trace:
        """Every prior in the cell of each object's centre, and all pairs; the metric is minus the larger side ratio.

        Syncs.
        """
        grid = preds.cells
        image, slot = targets.valid.nonzero(as_tuple=True)
        size = (targets.boxes[image, slot, 2:] - targets.boxes[image, slot, :2]).to(at_least_float32(preds.logits[:0]))
        centre = (targets.boxes[image, slot, :2] + targets.boxes[image, slot, 2:]) / 2
        anchors, first = [], 0
        for index, (rows, columns) in enumerate(grid.shapes):
            stride, priors = grid.level_strides[index], len(grid.level_priors[index])
            column, row = ((centre[:, i] / stride).floor().long() for i in (0, 1))
            cell = row.clamp(0, rows - 1) * columns + column.clamp(0, columns - 1)
            prior = torch.arange(priors, device=cell.device)
            place = prior * (rows * columns) + cell[:, None] if grid.prior_first else cell[:, None] * priors + prior
            anchors.append(first + place)
            first += grid.level_sizes[index]
        looked = torch.cat(anchors, dim=1)
        count = looked.shape[1]
        places = Places(image.repeat_interleave(count), slot.repeat_interleave(count), looked.flatten())
        at = join_places(preds, targets, places, Places(pairs.image, pairs.target, pairs.anchor))
        sizes = size.new_zeros((*targets.labels.shape, 2)).index_put((image, slot), size)[at.image, at.slot]
        assert grid.prior_wh is not None
        ratio = sizes / grid.prior_wh[at.anchor].to(sizes.dtype)
        metric = -torch.maximum(ratio, 1 / ratio).amax(dim=-1)
        unknown = torch.full_like(metric, torch.nan)
        columns_of = (at.image, at.slot, at.anchor, unknown, unknown, metric)
        return build_trace(preds, pairs, *columns_of, asked=0, otherwise="ratio_over_limit")

    @torch.no_grad()
    def __call__(self, preds: Predictions, targets: Targets) -> Assignment:
        """Pairs of the predictions' levels; levels that the targets were not prepared for cost one host sync.

        Raises:
            ShapeError: the targets were prepared for other maps, priors, slots or classes.
        """
        grid = preds.cells
        matches = self.prepare(targets, grid).prior_matches
        assert matches is not None
        check_prior_matches(matches, targets, grid, preds.logits.shape[-1])
        found = rows_of_grid(matches, grid)
        assert found is not None
        rows, first, level_rows = found
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
