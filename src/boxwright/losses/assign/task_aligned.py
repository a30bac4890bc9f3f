# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Task-aligned assignment: each object takes the candidates that score and fit best together."""

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from pydantic import Discriminator, Field, Tag
from torch import Tensor

from boxwright.config import component
from boxwright.errors import ConfigError, ShapeError
from boxwright.losses.assign import compat
from boxwright.losses.assign.fit import fitted, shortlist_of
from boxwright.losses.assign.keypoint_fit import KeypointFit
from boxwright.losses.assign.mask_fit import MaskFit
from boxwright.losses.assign.per_image import (
    assignment,
    best,
    boxes_of_image,
    check_objects,
    scores_of_image,
    true_boxes_of_image,
)
from boxwright.losses.assign.trace import Trace, build_trace, code_of, nearest_cells
from boxwright.ops.containment import points_inside
from boxwright.ops.overlap import OverlapName, paired_overlap
from boxwright.ops.probiou import paired_probiou
from boxwright.structures import Assignment, Grid, Predictions, Targets

AssignOverlap = OverlapName | Literal["probiou"]

PEAK_EPSILON = 1e-9  # unit of the metric; keeps 0 / 0 away from an object whose best metric is 0 (spec/losses C.2.8)


def _fit_name(value: Any) -> str:
    kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
    return str(kind) if kind is not None or not callable(value) else "custom"


# YAML can only name built-ins; in Python any callable of the form `fit.Fit` does.
AnyFit = Annotated[
    Annotated[KeypointFit, Tag("keypoint_fit")]
    | Annotated[MaskFit, Tag("mask_fit")]
    | Annotated[Callable[..., Tensor], Tag("custom")],
    Discriminator(_fit_name),
]


class Alignment(NamedTuple):
    """How well the objects (rows) and cells (columns) of an image fit; 0 where a cell is no candidate of an object."""

    score: Float[Tensor, "M A"]  # s: probability of the object's class
    overlap: Float[Tensor, "M A"]  # u: of the object's box with the predicted one, or what stands in for it
    metric: Float[Tensor, "M A"]  # t = s^alpha * u^beta


@component
class TaskAligned:
    """Each object takes its `topk` best candidates by score^alpha * overlap^beta among the cells inside its box.

    A cell wanted by several objects goes to the one that overlaps its box most. The weight of a pair is its metric,
    scaled so that an object's best pair has the object's best overlap; the normalizer is the sum of weights over all
    ranks, at least 1. Scores are the classes' probabilities: by sigmoid, or by softmax for exclusive classes, times the
    objectness of heads that have one. Oriented targets ask for the overlap "probiou".

    Source: TOOD, Feng et al. 2021, arXiv:2108.07755. Deviation: overlap is CIoU, as YOLOv8 trains.
    """

    kind: Literal["task_aligned"] = "task_aligned"
    topk: Annotated[int, Field(ge=1)] = 10
    # After conflicts an object keeps its best `topk2` of what it holds: 7 then 1 asks for more rivals than 1 alone.
    topk2: Annotated[int, Field(ge=1)] | None = None
    alpha: float = 0.5
    beta: float = 6.0
    overlap: AssignOverlap = "ciou"
    fit: AnyFit | None = None  # what stands in for the overlap: keypoints, masks, or a callable
    # Only levels where the box's side sqrt(w h) is this many cells, unless none of them holds a cell; the finest level
    # takes anything smaller and the coarsest anything larger.
    level_range: tuple[float, float] | None = None
    # px; shorter sides are widened to it for the question which cells lie inside, or the second level's stride.
    min_side: Annotated[float, Field(ge=0)] | Literal["second_stride"] = 0.0
    # px; objects with a shorter side take no cell. `swapped_size_filter` measures w in heights of the image and h in
    # widths (compatibility).
    smallest_side: Annotated[float, Field(ge=0)] = 0.0
    swapped_size_filter: bool = False
    # A box with fewer than topk non-zero metrics: drop the rest, or fill up in the order of anchors (compatibility).
    zero_metric_positives: compat.ZeroMetric = "drop"
    # Who may win a contested cell where every overlap is 0: boxes that contain it, or slot 0 (compatibility).
    conflict_scope: compat.ConflictScope = "containing"
    # Which objects count: valid slots, or those of them whose coordinates add up to more than 0 (compatibility).
    validity: compat.Validity = "mask"

    def __post_init__(self) -> None:
        if self.topk < 1:
            raise ConfigError(f"TaskAligned.topk: expected at least 1, got {self.topk}")
        if self.topk2 is not None and self.topk2 < 1:
            raise ConfigError(f"TaskAligned.topk2: expected at least 1, got {self.topk2}")

    @torch.no_grad()
    def __call__(self, preds: Predictions, targets: Targets) -> Assignment:
        """Pairs by image and cell. Waits for the device.

        Raises:
            ShapeError: a label or box that the predictions cannot have, another kind of boxes than `overlap` is for,
                or a grid with priors.
        """
        self._check(preds, targets)
        found = [self.pairs_of_image(preds, targets, image) for image in range(len(targets.labels))]
        return assignment(preds, [chosen for chosen, _ in found], [weight for _, weight in found])

    def pairs_of_image(
        self, preds: Predictions, targets: Targets, image: int
    ) -> tuple[Bool[Tensor, "M A"], Float[Tensor, "M A"]]:
        """Which object (row) takes which cell (column) of an image, and with which weight."""
        # 1. Candidates of an object are the cells whose centre lies inside its box.
        inside = self.candidates(preds.cells, targets, image)
        # 2. A candidate is as good as its score and its overlap together: t = s^alpha * u^beta.
        _, overlap, metric = self.alignment(preds, targets, image, inside)
        # 3. Every object takes its best candidates.
        chosen = self._best(metric, inside, self.topk)
        # 4. A cell that several took goes to the one it overlaps most of all that contain it, even if that had not.
        rivals = compat.rivals(inside, self.conflict_scope)
        winner = best(overlap.masked_fill(~rivals, -1.0), 1, dim=0)
        chosen = torch.where(chosen.sum(dim=0) > 1, winner, chosen)
        if self.topk2 is not None and self.topk2 != self.topk:
            chosen = self._best(metric.masked_fill(~chosen, 0.0), chosen, self.topk2)
        # 5. Weights: the metric, scaled so that an object's best pair weighs as much as its best overlap.
        metric, overlap = metric.masked_fill(~chosen, 0.0), overlap.masked_fill(~chosen, 0.0)
        peak_metric, peak_overlap = (values.amax(dim=1, keepdim=True) for values in (metric, overlap))
        return chosen, metric * (peak_overlap / (peak_metric + PEAK_EPSILON))

    def candidates(self, grid: Grid, targets: Targets, image: int) -> Bool[Tensor, "M A"]:
        """Which cells (columns) each object (row) may take: those inside its box, as the options have it."""
        boxes = targets.boxes[image].double()
        counting = compat.counting_objects(boxes, targets.valid[image], self.validity)
        counting &= compat.large_enough(boxes, self.smallest_side, grid.image_size, self.swapped_size_filter)
        inside = points_inside(grid.points, _widened(boxes, self._min_side(grid))) & counting[:, None]
        if self.level_range is None:
            return inside
        meant = inside & _levels_meant(boxes, grid, self.level_range)[:, grid.level]
        return torch.where(meant.any(dim=1, keepdim=True), meant, inside)

    @torch.no_grad()
    def alignment(self, preds: Predictions, targets: Targets, image: int, candidates: Bool[Tensor, "M A"]) -> Alignment:
        """Score, overlap and metric of an image's objects and candidates."""
        found, wanted = boxes_of_image(preds, image), true_boxes_of_image(preds, targets, image)
        if self.overlap == "probiou":
            overlap = paired_probiou(wanted[:, None], found)
        else:
            overlap = paired_overlap(wanted[:, None], found, self.overlap)
        score = scores_of_image(preds, targets, image).masked_fill(~candidates, 0.0)
        overlap = overlap.clamp(min=0).masked_fill(~candidates, 0.0)
        if self.fit is not None:
            compared, shortlist = candidates, shortlist_of(self.fit)
            if shortlist is not None:
                plain = (score**self.alpha * overlap**self.beta).masked_fill(~candidates, -1.0)
                compared = candidates & best(plain, shortlist * self.topk, dim=1)
            overlap = fitted(self.fit, preds, targets, image, compared, overlap)
        return Alignment(score, overlap, score**self.alpha * overlap**self.beta)

    @torch.no_grad()
    def trace(self, preds: Predictions, targets: Targets, pairs: Assignment) -> Trace:
        """Every cell inside each object, with what came of it; `pairs` are what a call returned. Syncs.

        Cells on levels that `level_range` leaves out are listed too. An object that holds no cell has one row a level:
        the cell nearest to its centre.
        """
        self._check(preds, targets)
        anywhere, parts = replace(self, level_range=None), []
        for image in range(len(targets.labels)):
            inside = anywhere.candidates(preds.cells, targets, image)
            score, overlap, metric = self.alignment(preds, targets, image, inside)
            meant = self.candidates(preds.cells, targets, image)
            fate = torch.where(metric == 0, code_of("no_metric"), code_of("outside_topk"))
            fate = fate.masked_fill(~meant, code_of("outside_level_range"))
            slot, anchor = inside.nonzero(as_tuple=True)
            values = (score, overlap, metric.masked_fill(~meant, -1.0), fate)
            parts.append((torch.full_like(slot, image), slot, anchor, *(plane[inside] for plane in values)))
        of_image, slot, anchor, score, overlap, metric, fate = (
            torch.cat(column) for column in zip(*parts, strict=True)
        )
        missed = nearest_cells(preds, targets, of_image, slot)
        unknown = torch.full_like(missed.anchor, torch.nan, dtype=score.dtype)
        outside = torch.full_like(missed.anchor, code_of("outside_box"))
        rows = ((of_image, missed.image), (slot, missed.slot), (anchor, missed.anchor))
        found = build_trace(
            preds,
            pairs,
            *(torch.cat(both) for both in rows),
            *(torch.cat((column, unknown)) for column in (score, overlap, metric)),
            wanted=self.topk,
            otherwise=torch.cat((fate, outside)),
        )
        second = (found.fate == code_of("outside_topk")) & (found.rank < self.topk)
        return replace(found, fate=torch.where(second, code_of("outside_second_topk"), found.fate))

    def _best(self, metric: Float[Tensor, "M A"], candidates: Bool[Tensor, "M A"], count: int) -> Bool[Tensor, "M A"]:
        return best(metric, count, dim=1) & compat.may_match(candidates, metric, self.zero_metric_positives)

    def _min_side(self, grid: Grid) -> float:
        return float(grid.level_strides[:2][-1]) if self.min_side == "second_stride" else self.min_side

    def _check(self, preds: Predictions, targets: Targets) -> None:
        check_objects(targets, preds.logits.shape[-1])
        if (self.overlap == "probiou") != targets.oriented:
            raise ShapeError(
                f"TaskAligned.overlap: expected {'probiou' if targets.oriented else 'one of axis-aligned boxes'} for "
                f"targets with {targets.boxes.shape[-1]} numbers a box, got {self.overlap}"
            )
        if preds.cells.level_priors:
            raise ShapeError(
                "candidates inside boxes: expected a grid with one candidate for each cell, got one with priors; "
                "use the assigner AnchorRatio for anchor-based heads"
            )


def _widened(boxes: Float[Tensor, "M box"], min_side: float) -> Float[Tensor, "M box"]:
    """Boxes with shorter sides widened to `min_side` px around their centre."""
    if not min_side:
        return boxes
    if boxes.shape[-1] == 5:
        return torch.cat((boxes[:, :2], boxes[:, 2:4].clamp(min=min_side), boxes[:, 4:]), dim=1)
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]).clamp(min=min_side) / 2
    return torch.cat((centre - half, centre + half), dim=1)


def _levels_meant(
    boxes: Float[Tensor, "M box"], grid: Grid, level_range: tuple[float, float]
) -> Bool[Tensor, "M levels"]:
    """Whether sqrt(w h), in cells of a level, lies in the range.

    The finest level has no lower end and the coarsest no upper one.
    """
    width, height = compat.sides(boxes)
    cells = (width * height).clamp(min=0).sqrt()[:, None] / boxes.new_tensor(grid.level_strides)
    large, small = cells >= level_range[0], cells <= level_range[1]
    large[:, 0], small[:, -1] = True, True
    return large & small
