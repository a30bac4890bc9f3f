# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Anchor-ratio assignment: each object takes every prior of similar size in its cell and the nearest two neighbours."""

from typing import Annotated, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from pydantic import Field
from torch import Tensor

from boxwright.config import component
from boxwright.errors import ConfigError, ShapeError
from boxwright.losses.assign.per_image import check_objects
from boxwright.losses.assign.trace import Places, Trace, build_trace, join_places
from boxwright.ops.boxes import xyxy_to_cxcywh
from boxwright.ops.collective import sum_over_ranks
from boxwright.structures import Assignment, Predictions, Targets, at_least_float32

# The cell itself, then its left, upper, right and lower neighbour: where a claim steps from the object's centre.
STEPS = ((0, 0), (-1, 0), (0, -1), (1, 0), (0, 1))


class Claims(NamedTuple):
    """How N objects claim the priors of one level, step by step; the P claims go by direction, prior and object."""

    ratio: Float[Tensor, "priors N"]  # the larger factor between a side and the prior's
    fits: Bool[Tensor, "priors N"]
    directions: Bool[Tensor, "5 N"]  # whether the cell itself, its left, upper, right, lower neighbour is used
    direction: Int64[Tensor, " P"]
    prior: Int64[Tensor, " P"]
    object: Int64[Tensor, " P"]
    cell: Int64[Tensor, "P 2"]  # (column, row)


@component
class AnchorRatio:
    """Each object takes all priors (anchors) whose sides differ from its own by less than the factor `ratio`.

    It takes them in the cell that holds its centre and in the neighbours whose border is nearer than `bias` cells.
    Nothing is exclusive: an object may hold many candidates, on several levels, and a candidate may be held by several
    objects, even twice by the same one when its centre lies on a border. Predictions play no part.

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

    @torch.no_grad()
    def __call__(self, preds: Predictions, targets: Targets) -> Assignment:
        """Pairs by level, direction, prior, image and object. Waits for the device.

        Raises:
            ShapeError: the grid has no priors, or a label or box is not one that the predictions can have.
        """
        grid = preds.cells
        if not grid.level_priors:
            raise ShapeError("AnchorRatio: expected a grid with priors (`make_grid(..., priors=...)`), got none")
        check_objects(targets, preds.logits.shape[-1])
        image, slot = targets.valid.nonzero(as_tuple=True)
        boxes = xyxy_to_cxcywh(targets.boxes[image, slot].double())
        anchors, claimants, counts, first = [], [], [], 0
        for shape, stride, priors in zip(grid.shapes, grid.level_strides, grid.level_priors, strict=True):
            claims = self.claims(boxes / stride, boxes.new_tensor(priors) / stride, shape)
            cells, cell = shape[0] * shape[1], claims.cell[:, 1] * shape[1] + claims.cell[:, 0]
            anchors.append(
                first + (claims.prior * cells + cell if grid.prior_first else cell * len(priors) + claims.prior)
            )
            claimants.append(claims.object)
            counts.append(len(claims.object))
            first += cells * len(priors)
        like = at_least_float32(preds.logits[:0])
        claimant, rows = torch.cat(claimants), torch.tensor(counts, device=like.device)
        weight = sum_over_ranks(rows.to(like.dtype)).clamp(min=1).reciprocal().repeat_interleave(rows)
        valid, one = torch.ones_like(claimant, dtype=torch.bool), like.new_ones(())
        return Assignment(image[claimant], torch.cat(anchors), slot[claimant], valid, weight, one, all_valid=True)

    def claims(self, boxes: Float[Tensor, "N 4"], priors: Float[Tensor, "priors 2"], shape: tuple[int, int]) -> Claims:
        """Claims of objects (cx, cy, w, h) on priors (w, h) of a level of (rows, columns); all in cells."""
        size = boxes.new_tensor(shape[::-1])
        # A prior fits when neither side differs by the factor `ratio` or more.
        share = boxes[:, 2:] / priors[:, None]
        ratio = torch.maximum(share, 1 / share).amax(dim=-1)
        fits = (ratio < self.ratio) & (boxes[:, 2:] > 0).all(dim=-1)
        # The neighbours whose border is nearer than `bias` cells join in, but for those outside the image.
        centre, to_end = boxes[:, :2], size - boxes[:, :2]
        (left, upper), (right, lower) = (((gap % 1 < self.bias) & (gap > 1)).unbind(dim=1) for gap in (centre, to_end))
        directions = torch.stack((torch.ones_like(left), left, upper, right, lower))
        direction, prior, claimant = (directions[:, None] & fits).nonzero(as_tuple=True)
        moved = centre[claimant] + boxes.new_tensor(STEPS)[direction] * self.bias
        # A centre outside the image claims the nearest cell.
        cell = torch.minimum(moved.long().clamp(min=0), size.long() - 1)
        return Claims(ratio, fits, directions, direction, prior, claimant, cell)

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
        return build_trace(preds, pairs, *columns_of, wanted=0, otherwise="ratio_over_limit")
