# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Task-aligned assignment: each object takes the candidates that score and fit best together."""

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any, Literal

import torch
from pydantic import Discriminator, Field, Tag
from torch import Tensor

from boxwright.config import component
from boxwright.errors import ConfigError
from boxwright.kernels.rows import readable
from boxwright.kernels.softplus import power
from boxwright.losses.assign.fit import fit_of_runs, fit_of_shortlist, shortlist_of
from boxwright.losses.assign.keypoint_fit import KeypointFit
from boxwright.losses.assign.mask_fit import MaskFit
from boxwright.losses.assign.scene import AssignOverlap, Scene
from boxwright.losses.assign.topk import among_best, by_object_then_best, expand
from boxwright.losses.assign.trace import Trace, build_trace, code_of, nearest_cells
from boxwright.losses.layout.candidates import RUN_CELLS, LayoutRules, check_candidates, lay_out_candidates
from boxwright.ops.collective import sum_over_ranks
from boxwright.structures import Assignment, Grid, Predictions, Targets

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


@component
class TaskAligned:
    """Each object takes its `topk` best candidates by score^alpha * overlap^beta among the cells inside its box.

    A cell wanted by several objects goes to the one that overlaps its box most. The weight of a pair is its metric,
    scaled so that an object's best pair has the object's best overlap; the normalizer is the sum of weights over all
    ranks, at least 1. Scores are the classes' probabilities: by sigmoid, or by softmax for exclusive classes, times the
    objectness of heads that have one. Oriented targets ask for the overlap "probiou".
    Only pairs of `Targets.candidates` are scored: no tensor of (images, objects, anchors) exists.

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
    zero_metric_positives: Literal["drop", "lowest_index"] = "drop"
    # Who may win a contested cell where every overlap is 0: boxes that contain it, or slot 0 (compatibility).
    conflict_scope: Literal["containing", "all"] = "containing"
    # Which objects count: valid slots, or those of them whose coordinates add up to more than 0 (compatibility).
    validity: Literal["mask", "sum"] = "mask"

    def __post_init__(self) -> None:
        if self.topk < 1:
            raise ConfigError(f"TaskAligned.topk: expected at least 1, got {self.topk}")
        if self.topk2 is not None and self.topk2 < 1:
            raise ConfigError(f"TaskAligned.topk2: expected at least 1, got {self.topk2}")

    def prepare(self, targets: Targets, grid: Grid) -> Targets:
        """The targets with their candidate pairs laid out on the host; unchanged where that was done.

        Raises:
            ShapeError: a valid slot has a negative label or a box that is not finite, or a cell has several priors.
        """
        if targets.candidates is not None:
            return targets
        laid_out = lay_out_candidates(targets, grid, self._layout_rules(grid))
        return replace(targets, candidates=laid_out.to(targets.boxes.device))

    @torch.no_grad()
    def __call__(self, preds: Predictions, targets: Targets) -> Assignment:
        """Pairs, with at most `topk` slots for each object; targets without prepared candidates cost one host sync."""
        candidates = self.prepare(targets, preds.cells).candidates
        assert candidates is not None
        check_candidates(candidates, targets, preds.cells, preds.logits.shape[-1], self._layout_rules(preds.cells))
        scene = Scene.of(preds, targets, candidates, self.overlap)
        overlap, metric = self._score(scene, preds, targets)
        pair = self._best(scene, metric, self.topk)
        alive = self._may_match(scene, metric, pair)
        pair, alive, orphan = self._resolve(scene, overlap, pair, alive)
        owner, cell = scene.owner_of(pair), scene.cell_of(pair)
        image = torch.div(cell, scene.num_anchors, rounding_mode="floor")
        anchor, target = cell - image * scene.num_anchors, scene.slot.index_select(0, owner).masked_fill_(orphan, 0)
        counts = alive & ~orphan
        if self.topk2 is not None and self.topk2 != self.topk:
            alive = among_best(
                image * candidates.slots + target,
                torch.where(counts, metric.view(-1).index_select(0, pair), 0.0),
                alive,
                cell,
                anchor,
                groups=len(candidates.cells) * candidates.slots,
                topk=self.topk2,
                zero_metric=self.zero_metric_positives,
            )
            counts = alive & ~orphan
        metric, overlap = (torch.where(counts, of.view(-1).index_select(0, pair), 0.0) for of in (metric, overlap))
        peak_metric, peak_overlap = (
            of.new_zeros(len(scene.slot)).scatter_reduce_(0, owner, of, "amax") for of in (metric, overlap)
        )
        weight = metric * (peak_overlap / (peak_metric + PEAK_EPSILON)).index_select(0, owner)
        order = _in_cells(cell, alive)
        image, anchor, target, alive, weight = (
            part.index_select(0, order) for part in (image, anchor, target, alive, weight)
        )
        normalizer = sum_over_ranks(weight.sum()).clamp(min=1)
        return Assignment(image, anchor, target, alive, weight, normalizer, all_valid=readable(alive))

    @torch.no_grad()
    def trace(self, preds: Predictions, targets: Targets, pairs: Assignment) -> Trace:
        """Every cell inside each object, with what came of it; `pairs` are what a call returned. Syncs.

        Cells on levels that `level_range` leaves out are listed too. An object that holds no cell has one row a level:
        the cell nearest to its centre.
        """
        rules = self._layout_rules(preds.cells)
        every = replace(targets, candidates=None)
        candidates = lay_out_candidates(every, preds.cells, rules._replace(level_range=None)).to(targets.boxes.device)
        scene = Scene.of(preds, targets, candidates, self.overlap)
        overlap, metric = self._score(scene, preds, replace(targets, candidates=candidates))
        cells = scene.cells()
        score = scene.scores(scene.owner, cells)
        place = (scene.lane < candidates.run_length).flatten().nonzero()[:, 0]
        cell, owner = cells.flatten()[place], scene.owner_of(place)
        image = torch.div(cell, scene.num_anchors, rounding_mode="floor")
        anchor, slot = cell - image * scene.num_anchors, scene.slot[owner]
        columns = [of.flatten()[place] for of in (score, overlap, metric)]
        fate = self._fates(targets, preds, rules, image, slot, anchor, columns[2])
        columns[2] = columns[2].masked_fill(fate == code_of("outside_level_range"), -1.0)
        missed = nearest_cells(preds, targets, image, slot)
        none = torch.full_like(missed.anchor, torch.nan, dtype=columns[0].dtype)
        outside = torch.full_like(missed.anchor, code_of("outside_box"))
        rows = ((image, missed.image), (slot, missed.slot), (anchor, missed.anchor))
        found = build_trace(
            preds,
            pairs,
            *(torch.cat(parts) for parts in rows),
            *(torch.cat((column, none)) for column in columns),
            asked=self.topk,
            otherwise=torch.cat((fate, outside)),
        )
        second = (found.fate == code_of("outside_topk")) & (found.rank < self.topk)
        return replace(found, fate=torch.where(second, code_of("outside_second_topk"), found.fate))

    def _fates(
        self,
        targets: Targets,
        preds: Predictions,
        rules: LayoutRules,
        image: Tensor,
        slot: Tensor,
        anchor: Tensor,
        metric: Tensor,
    ) -> Tensor:
        """What each cell is when it is neither positive nor lost."""
        fate = torch.where(metric == 0, code_of("no_metric"), code_of("outside_topk"))
        if rules.level_range is None:
            return fate
        allowed = lay_out_candidates(replace(targets, candidates=None), preds.cells, rules)
        anchors, cells = preds.logits.shape[1], allowed.object_runs
        owner = allowed.objects.repeat_interleave(cells)
        lane = torch.arange(RUN_CELLS)[:, None]
        inside = (lane < allowed.run_length).flatten()
        first = (allowed.run_first + lane).flatten()[inside]
        key = owner.expand(RUN_CELLS, -1).flatten()[inside] * anchors + first % anchors
        mine = (image * targets.labels.shape[1] + slot) * anchors + anchor
        return torch.where(torch.isin(mine, key.to(mine.device)), fate, code_of("outside_level_range"))

    def _layout_rules(self, grid: Grid) -> LayoutRules:
        second = float(grid.level_strides[:2][-1])
        return LayoutRules(
            level_range=self.level_range,
            min_side=second if self.min_side == "second_stride" else self.min_side,
            smallest_side=self.smallest_side,
            swapped_sides=self.swapped_size_filter,
            # Elsewhere they hold no cell anyway.
            flat_objects=self.validity == "sum" and (self.min_side != 0 or self.overlap == "probiou"),
        )

    def _score(self, scene: Scene, preds: Predictions, targets: Targets) -> tuple[Tensor, Tensor]:
        """Overlap (or fit) and metric of every pair; -1 and 0 for objects that do not count."""
        overlap, metric = (scene.sums.new_empty(RUN_CELLS, len(scene.owner)) for _ in range(2))
        shortlist = shortlist_of(self.fit)
        for runs in scene.pieces():
            owner, cell = scene.owner[runs], scene.cells(runs)
            fit = scene.overlaps(owner, cell).clamp_(min=0)
            if self.fit is not None and shortlist is None:
                fit = fit_of_runs(self.fit, preds, targets, scene, owner, cell, fit)
            overlap[:, runs], metric[:, runs] = fit, self._metric(scene, owner, cell, fit)
        if self.fit is not None and shortlist is not None:
            topk = shortlist * self.topk
            pair = self._best(scene, metric, topk)
            overlap = fit_of_shortlist(self.fit, preds, targets, scene, pair, overlap, min(topk, scene.num_anchors))
            overlap = _last_repeated(scene, overlap)
            for runs in scene.pieces():
                metric[:, runs] = self._metric(scene, scene.owner[runs], scene.cells(runs), overlap[:, runs])
        if self.validity == "sum":
            ignored = ~scene.sums_up.index_select(0, scene.owner)
            overlap.masked_fill_(ignored, -1.0)
            metric.masked_fill_(ignored, 0.0)
        return overlap, metric

    def _metric(self, scene: Scene, owner: Tensor, cell: Tensor, fit: Tensor) -> Tensor:
        return power(scene.scores(owner, cell), self.alpha).mul_(power(fit, self.beta))

    def _best(self, scene: Scene, metric: Tensor, topk: int) -> Tensor:
        """The pair of every slot, each object's best first.

        In two rounds, so that few numbers are sorted: an object's `topk` best pairs lie in the `topk` runs with the
        best best pair.
        """
        topk = min(topk, scene.num_anchors)
        runs = scene.candidates.object_runs.clamp(max=topk)
        number, owner = expand(runs, sum(min(count, topk) for image in scene.candidates.runs_of for count in image))
        by_best = by_object_then_best(scene.owner, metric.amax(dim=0))
        run = by_best[scene.first_run.index_select(0, owner).add_(number)].sort().values  # back in the order of cells
        nominee = (run[:, None] + scene.lane.view(-1) * len(scene.owner)).flatten()
        first = (torch.cumsum(runs, 0) - runs) * RUN_CELLS
        repeated = (scene.lane.view(-1) >= scene.candidates.run_length.index_select(0, run)[:, None]).flatten()
        by_best = by_object_then_best(
            owner.repeat_interleave(RUN_CELLS, output_size=len(nominee)),
            metric.view(-1).index_select(0, nominee).masked_fill_(repeated, -1.0),
        )

        taken = scene.candidates.object_cells.clamp(max=topk)
        number, owner = expand(taken, sum(min(count, topk) for image in scene.candidates.cells for count in image))
        return nominee[by_best[first.index_select(0, owner).add_(number)]]

    def _may_match(self, scene: Scene, metric: Tensor, pair: Tensor) -> Tensor:
        """Whether the pair of each slot may become a positive."""
        # Not `> 0`: a metric that is not a number has to reach the loss, where the run stops.
        alive = metric.view(-1).index_select(0, pair) != 0
        if self.zero_metric_positives == "lowest_index":
            alive |= self._fills_up(scene, metric, min(self.topk, scene.num_anchors)).view(-1)[pair]
        return alive

    def _fills_up(self, scene: Scene, metric: Tensor, topk: int) -> Tensor:
        """Pairs with metric 0 that a top-k over ALL cells of the image takes, when equal metrics go by cell index."""
        positive = (metric != 0) & (scene.lane < scene.candidates.run_length)
        in_order = positive.t().flatten().long()
        before = torch.cumsum(in_order, 0) - in_order
        first = before[scene.first_run * RUN_CELLS]
        positives = torch.zeros_like(first).index_add_(0, scene.owner, positive.long().sum(dim=0))
        # Cells with metric 0 that come earlier: all earlier cells of the image but the object's positive ones.
        earlier = scene.cells() % scene.num_anchors - (before.view(-1, RUN_CELLS).t() - first[scene.owner])
        filling = ~positive & (earlier < (topk - positives)[scene.owner])
        if self.validity == "sum":
            filling &= scene.sums_up[scene.owner]
        return filling

    def _resolve(self, scene: Scene, overlap: Tensor, pair: Tensor, alive: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One live slot per cell: pairs and liveness after conflicts, and whether slot 0 takes it without overlap."""
        cell = scene.cell_of(pair)
        wishes = cell.new_zeros(scene.num_cells).index_add_(0, cell, alive.long())
        contested = alive & (wishes.index_select(0, cell) > 1)
        # The winner among all boxes that contain the cell, also those that did not choose it.
        run = _best_run_of_cell(scene, overlap).index_select(0, cell)
        # Where the best is not a number no run is: the pair stays, and its value ends the training.
        winner = (cell - scene.candidates.run_first[run]) * len(scene.owner) + run
        pair = torch.where(contested & (run >= 0), winner, pair)
        orphan = torch.zeros_like(contested)
        if self.conflict_scope == "all":
            orphan = contested & (overlap.view(-1)[pair] == 0)
        number = torch.arange(len(pair), device=pair.device)
        first = torch.full_like(wishes, len(pair)).scatter_reduce_(
            0, cell, torch.where(alive, number, len(pair)), "amin"
        )
        return pair, alive & (first.index_select(0, cell) == number), orphan


def _in_cells(cell: Tensor, alive: Tensor) -> Tensor:
    """Slots in the order of cells: terms then read and write neighbours in memory.

    Unused slots are left out where that can be known without waiting: crowded images leave a quarter of them unused.
    """
    if not readable(alive):
        return torch.sort(cell, stable=True).indices
    used = alive.nonzero()[:, 0]
    return used.index_select(0, torch.sort(cell.index_select(0, used), stable=True).indices)


def _last_repeated(scene: Scene, overlap: Tensor) -> Tensor:
    """Planes in which the places behind a run's end hold what its last pair holds."""
    last = (scene.candidates.run_length - 1).expand_as(overlap)
    return torch.where(scene.lane > last, overlap.gather(0, last), overlap)


def _best_run_of_cell(scene: Scene, overlap: Tensor) -> Tensor:
    """For every cell the run of the pair with the largest overlap there, the first of equal ones; -1 for no pair."""
    last, number = len(scene.owner) - 1, torch.arange(len(scene.owner), device=overlap.device)
    if overlap.dtype == torch.float32:
        # High bits the overlap, low bits the run's place from the end: one scatter finds both. -1 stays below all.
        best = torch.full((scene.num_cells,), -1, device=overlap.device)
        for runs in scene.pieces():
            key = torch.add(last - number[runs], overlap[:, runs].view(torch.int32), alpha=1 << 32)
            best.scatter_reduce_(0, scene.cells(runs).view(-1), key.view(-1), "amax")
        return torch.where(best < 0, -1, last - (best & 0xFFFFFFFF))
    cell, overlap = scene.cells().view(-1), overlap.view(-1)
    peak = overlap.new_zeros(scene.num_cells).scatter_reduce_(0, cell, overlap, "amax")
    winning = torch.where(overlap == peak.index_select(0, cell), number.repeat(RUN_CELLS), last + 1)
    best = torch.full((scene.num_cells,), last + 1, device=overlap.device).scatter_reduce_(0, cell, winning, "amin")
    return torch.where(best > last, -1, best)
