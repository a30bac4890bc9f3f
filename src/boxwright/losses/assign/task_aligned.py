# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Task-aligned assignment: each object takes the candidates that score and fit best together."""

from dataclasses import replace
from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from boxwright.config import component
from boxwright.errors import ConfigError
from boxwright.ops.candidates import RUN_CELLS, check_candidates, lay_out_candidates
from boxwright.ops.chunks import image_chunks, pieces
from boxwright.ops.collective import sum_over_ranks
from boxwright.ops.overlap import BoxPlanes, OverlapName, overlap_of_planes
from boxwright.structures import Assignment, Candidates, Grid, Predictions, Targets, at_least_float32

PEAK_EPSILON = 1e-9  # unit of the metric; keeps 0 / 0 away from an object whose best metric is 0 (spec/losses C.2.8)
EVERY = slice(None)
CACHE_PAIRS = 1 << 15  # pairs worked on at once: a dozen float32 values of each stay in a core's cache


@component
class TaskAligned:
    """Each object takes its `topk` best candidates by score^alpha * overlap^beta among the cells inside its box.

    A cell wanted by several objects goes to the one that overlaps its box most. The weight of a pair is its metric,
    scaled so that an object's best pair has the object's best overlap; the normalizer is the sum of weights over all
    ranks, at least 1.
    Only pairs of `Targets.candidates` are scored: no tensor of (images, objects, anchors) exists.

    Source: TOOD, Feng et al. 2021, arXiv:2108.07755. Deviation: overlap is CIoU, as YOLOv8 trains.
    """

    kind: Literal["task_aligned"] = "task_aligned"
    topk: Annotated[int, Field(ge=1)] = 10
    alpha: float = 0.5
    beta: float = 6.0
    overlap: OverlapName = "ciou"
    # A box with fewer than topk non-zero metrics: drop the rest, or fill up in the order of anchors (compatibility).
    zero_metric_positives: Literal["drop", "lowest_index"] = "drop"
    # Who may win a contested cell where every overlap is 0: boxes that contain it, or slot 0 (compatibility).
    conflict_scope: Literal["containing", "all"] = "containing"
    # Which objects count: valid slots, or those of them whose coordinates add up to more than 0 (compatibility).
    validity: Literal["mask", "sum"] = "mask"

    def __post_init__(self) -> None:
        if self.topk < 1:
            raise ConfigError(f"TaskAligned.topk: expected at least 1, got {self.topk}")

    def prepare(self, targets: Targets, grid: Grid) -> Targets:
        """The targets with their candidate pairs laid out on the host; unchanged where that was done."""
        if targets.candidates is not None:
            return targets
        return replace(targets, candidates=lay_out_candidates(targets, grid).to(targets.boxes.device))

    @torch.no_grad()
    def __call__(self, preds: Predictions, targets: Targets) -> Assignment:
        """Pairs, with at most `topk` slots for each object; targets without prepared candidates cost one host sync."""
        candidates = self.prepare(targets, preds.cells).candidates
        assert candidates is not None
        check_candidates(candidates, targets, preds.cells, preds.logits.shape[-1])
        scene = _Scene.of(preds, targets, candidates, self.overlap)
        overlap, metric = self._score(scene)
        pair, alive = self._best(scene, metric)
        pair, alive, orphan = self._resolve(scene, overlap, pair, alive)
        counts = alive & ~orphan
        metric, overlap = (torch.where(counts, of.view(-1).index_select(0, pair), 0.0) for of in (metric, overlap))
        owner = scene.owner_of(pair)
        peak_metric, peak_overlap = (
            of.new_zeros(len(scene.slot)).scatter_reduce_(0, owner, of, "amax") for of in (metric, overlap)
        )
        weight = metric * (peak_overlap / (peak_metric + PEAK_EPSILON)).index_select(0, owner)
        target, cell = scene.slot.index_select(0, owner).masked_fill_(orphan, 0), scene.cell_of(pair)
        # In the order of cells: terms then read and write neighbours in memory.
        cell, order = torch.sort(cell, stable=True)
        target, alive, weight = (part.index_select(0, order) for part in (target, alive, weight))
        image = torch.div(cell, scene.num_anchors, rounding_mode="floor")
        normalizer = sum_over_ranks(weight.sum()).clamp(min=1)
        return Assignment(image, cell - image * scene.num_anchors, target, alive, weight, normalizer)

    def _score(self, scene: "_Scene") -> tuple[Tensor, Tensor]:
        """Overlap and metric of every pair; -1 and 0 for objects that do not count."""
        overlap, metric = (scene.wanted.x1.new_empty(RUN_CELLS, len(scene.owner)) for _ in range(2))
        for runs in scene.pieces():
            owner, cell = scene.owner[runs], scene.cells(runs)
            fit = overlap_of_planes(scene.wanted.take(owner), scene.boxes.take(cell), self.overlap).clamp_(min=0)
            score = _power(scene.logits(owner, cell).sigmoid_(), self.alpha).mul_(_power(fit, self.beta))
            if self.validity == "sum":
                ignored = ~scene.sums_up.index_select(0, owner)
                fit.masked_fill_(ignored, -1.0)
                score.masked_fill_(ignored, 0.0)
            overlap[:, runs], metric[:, runs] = fit, score
        return overlap, metric

    def _best(self, scene: "_Scene", metric: Tensor) -> tuple[Tensor, Tensor]:
        """The pair of every slot, each object's best first, and whether it may become a positive.

        In two rounds, so that few numbers are sorted: an object's `topk` best pairs lie in the `topk` runs with the
        best best pair.
        """
        topk = min(self.topk, scene.num_anchors)
        runs = scene.candidates.object_runs.clamp(max=topk)
        number, owner = _expand(runs, sum(min(count, topk) for image in scene.candidates.runs_of for count in image))
        by_best = _by_object_then_best(scene.owner, metric.amax(dim=0))
        run = by_best[scene.first_run.index_select(0, owner).add_(number)].sort().values  # back in the order of cells
        nominee = (run[:, None] + scene.lane.view(-1) * len(scene.owner)).flatten()
        first = (torch.cumsum(runs, 0) - runs) * RUN_CELLS
        repeated = (scene.lane.view(-1) >= scene.candidates.run_length.index_select(0, run)[:, None]).flatten()
        by_best = _by_object_then_best(
            owner.repeat_interleave(RUN_CELLS, output_size=len(nominee)),
            metric.view(-1).index_select(0, nominee).masked_fill_(repeated, -1.0),
        )

        taken = scene.candidates.object_cells.clamp(max=topk)
        number, owner = _expand(taken, sum(min(count, topk) for image in scene.candidates.cells for count in image))
        pair = nominee[by_best[first.index_select(0, owner).add_(number)]]
        # Not `> 0`: a metric that is not a number has to reach the loss, where the run stops.
        alive = metric.view(-1).index_select(0, pair) != 0
        if self.zero_metric_positives == "lowest_index":
            alive |= self._fills_up(scene, metric, topk).view(-1)[pair]
        return pair, alive

    def _fills_up(self, scene: "_Scene", metric: Tensor, topk: int) -> Tensor:
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

    def _resolve(self, scene: "_Scene", overlap: Tensor, pair: Tensor, alive: Tensor) -> tuple[Tensor, Tensor, Tensor]:
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


class _Scene(NamedTuple):
    """Candidate pairs of a batch, and what scores them.

    Pairs stand in planes of (RUN_CELLS, R): a column is a run of neighbouring cells of one object, so what belongs to
    the object is read once a run. Columns are ordered by image, slot and cell. A pair's number is row * R + column.
    A run that is shorter repeats its last pair, so that a largest value needs no mask.
    """

    candidates: Candidates
    owner: Tensor  # (R,) object of each run
    lane: Tensor  # (RUN_CELLS, 1) 0, 1, ...
    first_run: Tensor  # (N,) first run of every object
    slot: Tensor  # (N,) of every object
    wanted: BoxPlanes  # of every object
    boxes: BoxPlanes  # of every cell
    flat_logits: Tensor  # all logits in memory order
    logit_shift: Tensor  # (N,) where the logit of the object's class at cell 0 would stand
    logit_step: int  # from a cell to the next
    num_anchors: int
    num_cells: int

    @property
    def sums_up(self) -> Tensor:
        """(N,) whether an object's coordinates add up to more than 0 px."""
        return self.wanted.x1 + self.wanted.y1 + self.wanted.x2 + self.wanted.y2 > 0

    def cells(self, runs: slice = EVERY) -> Tensor:
        """Cell of every place of some runs."""
        first, length = self.candidates.run_first[runs], self.candidates.run_length[runs]
        return torch.minimum(first + self.lane, first + length - 1)

    def logits(self, owner: Tensor, cell: Tensor) -> Tensor:
        """The logits of the objects' classes at the cells."""
        place = torch.add(self.logit_shift.index_select(0, owner), cell, alpha=self.logit_step)
        return at_least_float32(self.flat_logits.index_select(0, place.view(-1))).view(place.shape)

    def owner_of(self, pair: Tensor) -> Tensor:
        """Object of each of some pairs."""
        return self.owner.index_select(0, pair % max(len(self.owner), 1))

    def cell_of(self, pair: Tensor) -> Tensor:
        """Cell of each of some pairs."""
        runs = max(len(self.owner), 1)
        return self.candidates.run_first.index_select(0, pair % runs) + pair // runs

    def pieces(self) -> list[slice]:
        """Runs to work on at once: whole vectors of the processor, so that the cut changes no bit of the result."""
        return pieces(len(self.owner), self.owner.device, max(CACHE_PAIRS // RUN_CELLS, 16))

    @classmethod
    def of(cls, preds: Predictions, targets: Targets, candidates: Candidates, overlap: OverlapName) -> "_Scene":
        batch, anchors, classes = preds.logits.shape
        by_image, by_anchor, by_class = preds.logits.stride()
        # One flat view, whatever the memory order of the head.
        reach = (batch - 1) * by_image + (anchors - 1) * by_anchor + (classes - 1) * by_class + 1
        image, slot = candidates.objects // candidates.slots, candidates.objects % candidates.slots
        label = targets.labels.flatten()[candidates.objects]
        wanted = targets.boxes.flatten(0, 1)[candidates.objects].to(at_least_float32(preds.logits[:0]).dtype)
        return cls(
            candidates=candidates,
            owner=torch.repeat_interleave(candidates.object_runs, output_size=sum(candidates.runs)),
            lane=torch.arange(RUN_CELLS, device=preds.logits.device)[:, None],
            first_run=torch.cumsum(candidates.object_runs, 0) - candidates.object_runs,
            slot=slot,
            wanted=BoxPlanes.of(wanted, overlap),
            boxes=_box_planes(preds, overlap),
            flat_logits=preds.logits.as_strided((max(reach, 0),), (1,)),
            logit_shift=image * (by_image - anchors * by_anchor) + label * by_class,
            logit_step=by_anchor,
            num_anchors=anchors,
            num_cells=batch * anchors,
        )


def _expand(counts: Tensor, total: int) -> tuple[Tensor, Tensor]:
    """For counts (2, 3): positions 0 1 0 1 2 within each, and the owners 0 0 1 1 1. The total is known on the host."""
    owner = torch.repeat_interleave(counts, output_size=total)
    first = torch.cumsum(counts, 0) - counts
    return torch.arange(total, device=counts.device).sub_(first.index_select(0, owner)), owner


def _box_planes(preds: Predictions, overlap: OverlapName) -> BoxPlanes:
    """Decoded boxes of every cell of the batch."""
    batch, anchors, raw = preds.box_raw.shape
    chunks = image_chunks([anchors * raw] * batch, preds.box_raw.device)
    parts = [BoxPlanes.of(preds.boxes_of(images).flatten(0, 1), overlap) for images in chunks]
    x1, y1, x2, y2 = (torch.cat(planes) for planes in zip(*(part[:4] for part in parts), strict=True))
    angles = [part.angle for part in parts if part.angle is not None]
    return BoxPlanes(x1, y1, x2, y2, torch.cat(angles) if angles else None)


def _power(base: Tensor, exponent: float) -> Tensor:
    """Base ** exponent, by multiplication for small even exponents: several times faster than the general power."""
    if exponent == 6.0:
        square = base * base
        return square * square * square
    return base.sqrt() if exponent == 0.5 else base**exponent


def _by_object_then_best(owner: Tensor, metric: Tensor) -> Tensor:
    """Metrics by object, each object's largest first, equal ones in their order; not-a-number counts as largest."""
    if metric.dtype == torch.float32:
        # Bits of non-negative floats order like integers, so one sort does both. -1 comes last.
        bits = (metric.view(torch.int32) & 0x7FFFFFFF).masked_fill_(metric < 0, -1)
        return torch.sort((owner << 32).add_(0x7FFFFFFF).sub_(bits), stable=True).indices
    order = torch.sort(metric, descending=True, stable=True).indices
    return order[torch.sort(owner[order], stable=True).indices]


def _best_run_of_cell(scene: _Scene, overlap: Tensor) -> Tensor:
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
