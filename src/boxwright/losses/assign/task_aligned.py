# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Task-aligned assignment: each object takes the candidates that score and fit best together."""

from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from boxwright.config import component
from boxwright.errors import ConfigError
from boxwright.ops.candidates import RUN_CELLS, lay_out_candidates
from boxwright.ops.chunks import image_chunks
from boxwright.ops.collective import sum_over_ranks
from boxwright.ops.overlap import BoxPlanes, OverlapName, overlap_of_planes
from boxwright.structures import Assignment, Candidates, Predictions, Targets, at_least_float32

PEAK_EPSILON = 1e-9  # unit of the metric; keeps 0 / 0 away from an object whose best metric is 0 (spec/losses C.2.8)
CACHE_PAIRS = 1 << 17  # pairs worked on at once: a dozen float32 values of each stay in a core's cache


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

    @torch.no_grad()
    def __call__(self, preds: Predictions, targets: Targets) -> Assignment:
        """Pairs, with at most `topk` slots for each object; targets without prepared candidates cost one host sync."""
        candidates = targets.candidates or lay_out_candidates(targets, preds.grid).to(targets.boxes.device)
        chunks = image_chunks([RUN_CELLS * sum(runs) for runs in candidates.runs_of], preds.logits.device, CACHE_PAIRS)
        parts = [self._assign(_Scene.of(preds, targets, candidates, images, self.overlap)) for images in chunks]
        image, anchor, target, valid, weight = (torch.cat(part) for part in zip(*parts, strict=True))
        normalizer = sum_over_ranks(weight.sum()).clamp(min=1)
        return Assignment(image, anchor, target, valid, weight, normalizer)

    def _assign(self, scene: "_Scene") -> tuple[Tensor, ...]:
        """Image, anchor, target, valid and weight of every slot of a few images."""
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
        target, cell = scene.slot.index_select(0, owner).masked_fill_(orphan, 0), scene.cell.view(-1)[pair]
        image, anchor = scene.image.index_select(0, owner) + scene.first_image, cell % scene.num_anchors
        # In the order of cells: terms then read and write neighbours in memory.
        order = torch.sort(cell, stable=True).indices
        return tuple(part.index_select(0, order) for part in (image, anchor, target, alive, weight))

    def _score(self, scene: "_Scene") -> tuple[Tensor, Tensor]:
        """Overlap and metric of every pair, -1 in places without one; -1 and 0 for objects that do not count."""
        overlap = overlap_of_planes(scene.wanted_of_run, scene.boxes.take(scene.cell), self.overlap).clamp_(min=0)
        metric = _power(scene.logits.sigmoid(), self.alpha).mul_(_power(overlap, self.beta))
        if self.validity == "sum":
            ignored = ~scene.sums_up.index_select(0, scene.owner)
            overlap.masked_fill_(ignored, -1.0)
            metric.masked_fill_(ignored, 0.0)
        return overlap.masked_fill_(scene.outside, -1.0), metric.masked_fill_(scene.outside, -1.0)

    def _best(self, scene: "_Scene", metric: Tensor) -> tuple[Tensor, Tensor]:
        """The pair of every slot, each object's best first, and whether it may become a positive.

        In two rounds, so that few numbers are sorted: an object's `topk` best pairs lie in the `topk` runs with the
        best best pair.
        """
        topk = min(self.topk, scene.num_anchors)
        runs = scene.object_runs.clamp(max=topk)
        number, owner = _expand(runs, sum(min(count, topk) for count in scene.runs_of))
        by_best = _by_object_then_best(scene.owner, metric.amax(dim=0))
        run = by_best[scene.first_run.index_select(0, owner).add_(number)].sort().values  # back in the order of cells
        nominee = (run[:, None] + scene.lane.view(-1) * len(scene.owner)).flatten()
        first = (torch.cumsum(runs, 0) - runs) * RUN_CELLS
        by_best = _by_object_then_best(
            owner.repeat_interleave(RUN_CELLS, output_size=len(nominee)), metric.view(-1).index_select(0, nominee)
        )

        taken = scene.object_cells.clamp(max=topk)
        number, owner = _expand(taken, sum(min(count, topk) for count in scene.cells_of))
        pair = nominee[by_best[first.index_select(0, owner).add_(number)]]
        # Not `> 0`: a metric that is not a number has to reach the loss, where the run stops.
        alive = metric.view(-1).index_select(0, pair) != 0
        if self.zero_metric_positives == "lowest_index":
            alive |= self._fills_up(scene, metric, topk).view(-1)[pair]
        return pair, alive

    def _fills_up(self, scene: "_Scene", metric: Tensor, topk: int) -> Tensor:
        """Pairs with metric 0 that a top-k over ALL cells of the image takes, when equal metrics go by cell index."""
        positive = (metric != 0) & ~scene.outside
        in_order = positive.t().flatten().long()
        before = torch.cumsum(in_order, 0) - in_order
        first = before[scene.first_run * RUN_CELLS]
        positives = torch.zeros_like(first).index_add_(0, scene.owner, positive.long().sum(dim=0))
        # Cells with metric 0 that come earlier: all earlier cells of the image but the object's positive ones.
        earlier = scene.cell % scene.num_anchors - (before.view(-1, RUN_CELLS).t() - first[scene.owner])
        filling = ~positive & (earlier < (topk - positives)[scene.owner])
        if self.validity == "sum":
            filling &= scene.sums_up[scene.owner]
        return filling

    def _resolve(self, scene: "_Scene", overlap: Tensor, pair: Tensor, alive: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One live slot per cell: pairs and liveness after conflicts, and whether slot 0 takes it without overlap."""
        cell = scene.cell.view(-1).index_select(0, pair)
        wishes = cell.new_zeros(scene.num_cells).index_add_(0, cell, alive.long())
        contested = alive & (wishes.index_select(0, cell) > 1)
        # The winner among all boxes that contain the cell, also those that did not choose it.
        run = _best_run_of_cell(scene, overlap).index_select(0, cell)
        # Where the best is not a number no run is: the pair stays, and its value ends the training.
        winner = (cell - scene.run_first[run]) * len(scene.owner) + run
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
    """Candidate pairs of a few images, and what scores them.

    Pairs stand in planes of (RUN_CELLS, R): a column is a run of neighbouring cells of one object, so what belongs to
    the object is read once a run. Columns are ordered by image, slot and cell. A pair's number is row * R + column.
    """

    owner: Tensor  # (R,) object of each run
    cell: Tensor  # (RUN_CELLS, R) image * A + anchor, counted from the first image of the scene
    outside: Tensor  # (RUN_CELLS, R) places beyond the end of a run: no pair
    lane: Tensor  # (RUN_CELLS, 1) 0, 1, ...
    logits: Tensor  # (RUN_CELLS, R) of the object's class
    boxes: BoxPlanes  # of every cell
    wanted: BoxPlanes  # of every object
    slot: Tensor  # (N,) of every object
    image: Tensor  # (N,) counted from the first image of the scene
    run_first: Tensor  # (R,) first cell of each run
    first_run: Tensor  # (N,) first run of every object
    object_runs: Tensor  # (N,) runs of every object
    object_cells: Tensor  # (N,) pairs of every object
    runs_of: tuple[int, ...]  # the same two on the host
    cells_of: tuple[int, ...]
    first_image: int
    num_anchors: int
    num_cells: int

    @property
    def sums_up(self) -> Tensor:
        """(N,) whether an object's coordinates add up to more than 0 px."""
        return self.wanted.x1 + self.wanted.y1 + self.wanted.x2 + self.wanted.y2 > 0

    @property
    def wanted_of_run(self) -> BoxPlanes:
        """(R,) box of the object of each run."""
        return self.wanted.take(self.owner)

    def owner_of(self, pair: Tensor) -> Tensor:
        """Object of each of some pairs."""
        return self.owner.index_select(0, pair % max(len(self.owner), 1))

    @classmethod
    def of(
        cls, preds: Predictions, targets: Targets, candidates: Candidates, images: slice, overlap: OverlapName
    ) -> "_Scene":
        cells_of = tuple(count for image in candidates.cells[images] for count in image)
        runs_of = tuple(count for image in candidates.runs_of[images] for count in image)
        first_object = sum(map(len, candidates.cells[: images.start]))
        first_run = sum(candidates.runs[: images.start])
        objects = slice(first_object, first_object + len(cells_of))
        runs = slice(first_run, first_run + sum(runs_of))
        batch, anchors, _ = preds.logits[images].shape
        device = preds.logits.device

        object_runs = candidates.object_runs[objects]
        owner = torch.repeat_interleave(object_runs, output_size=sum(runs_of))
        lane = torch.arange(RUN_CELLS, device=device)[:, None]
        run_first = candidates.run_first[runs] - images.start * anchors
        # Places beyond a run's end read whatever cell follows; past the last image they stay at its last cell.
        cell = (run_first + lane).clamp_(max=batch * anchors - 1)
        flat_slot = candidates.objects[objects]
        image, slot = flat_slot // candidates.slots - images.start, flat_slot % candidates.slots
        wanted = targets.boxes.flatten(0, 1)[flat_slot].to(at_least_float32(preds.logits[:0]).dtype)
        label = targets.labels.flatten()[flat_slot]
        return cls(
            owner=owner,
            cell=cell,
            outside=lane >= candidates.run_length[runs],
            lane=lane,
            logits=_logits_of_pairs(preds.logits[images], owner, cell, image, label),
            boxes=_box_planes(preds, images, overlap),
            wanted=BoxPlanes.of(wanted, overlap),
            slot=slot,
            image=image,
            run_first=run_first,
            first_run=torch.cumsum(object_runs, 0) - object_runs,
            object_runs=object_runs,
            object_cells=candidates.object_cells[objects],
            runs_of=runs_of,
            cells_of=cells_of,
            first_image=images.start,
            num_anchors=anchors,
            num_cells=batch * anchors,
        )


def _expand(counts: Tensor, total: int) -> tuple[Tensor, Tensor]:
    """For counts (2, 3): positions 0 1 0 1 2 within each, and the owners 0 0 1 1 1. The total is known on the host."""
    owner = torch.repeat_interleave(counts, output_size=total)
    first = torch.cumsum(counts, 0) - counts
    return torch.arange(total, device=counts.device).sub_(first.index_select(0, owner)), owner


def _logits_of_pairs(logits: Tensor, owner: Tensor, cell: Tensor, image: Tensor, label: Tensor) -> Tensor:
    """The logit of the object's class at the cell, read through one flat view whatever the memory order of the head."""
    batch, anchors, classes = logits.shape
    by_image, by_anchor, by_class = logits.stride()
    reach = (batch - 1) * by_image + (anchors - 1) * by_anchor + (classes - 1) * by_class + 1
    shift = image * (by_image - anchors * by_anchor) + label * by_class
    flat = logits.as_strided((max(reach, 0),), (1,))
    # A place beyond the end of a run may lie in the next image, beyond the end of the memory.
    place = torch.add(shift.index_select(0, owner), cell, alpha=by_anchor).clamp_(max=reach - 1)
    return at_least_float32(flat.index_select(0, place.flatten())).view(place.shape)


def _box_planes(preds: Predictions, images: slice, overlap: OverlapName) -> BoxPlanes:
    """Decoded boxes of every cell of the images."""
    _, anchors, raw = preds.box_raw.shape
    chunks = image_chunks([anchors * raw] * (images.stop - images.start), preds.box_raw.device)
    parts = [preds.boxes_of(slice(images.start + c.start, images.start + c.stop)).flatten(0, 1) for c in chunks]
    planes = [BoxPlanes.of(part, overlap) for part in parts]
    if len(planes) == 1:
        return planes[0]
    angles = [plane.angle for plane in planes if plane.angle is not None]
    return BoxPlanes(
        torch.cat([plane.x1 for plane in planes]),
        torch.cat([plane.y1 for plane in planes]),
        torch.cat([plane.x2 for plane in planes]),
        torch.cat([plane.y2 for plane in planes]),
        torch.cat(angles) if angles else None,
    )


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
    runs = len(scene.owner)
    cell = scene.cell.view(-1)
    number = torch.arange(runs, device=overlap.device)
    if overlap.dtype == torch.float32:
        # High bits the overlap, low bits the run's place from the end: one scatter finds both. -1 stays below all.
        key = torch.add(runs - 1 - number, overlap.view(torch.int32), alpha=1 << 32).view(-1)
        best = torch.full((scene.num_cells,), -1, device=overlap.device).scatter_reduce_(0, cell, key, "amax")
        return torch.where(best < 0, -1, runs - 1 - (best & 0xFFFFFFFF))
    overlap = overlap.view(-1)
    peak = overlap.new_zeros(scene.num_cells).scatter_reduce_(0, cell, overlap, "amax")
    winning = torch.where(overlap == peak.index_select(0, cell), number.repeat(RUN_CELLS), runs)
    best = torch.full((scene.num_cells,), runs, device=overlap.device).scatter_reduce_(0, cell, winning, "amin")
    return torch.where(best == runs, -1, best)
