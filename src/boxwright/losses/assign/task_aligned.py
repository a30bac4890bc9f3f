# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Task-aligned assignment: each object takes the candidates that score and fit best together."""

from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from boxwright.config import component
from boxwright.errors import ConfigError
from boxwright.ops.candidates import lay_out_candidates
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
        chunks = image_chunks([sum(cells) for cells in candidates.cells], preds.logits.device, CACHE_PAIRS)
        parts = [self._assign(_Scene.of(preds, targets, candidates, images, self.overlap)) for images in chunks]
        image, anchor, target, valid, weight = (torch.cat(part) for part in zip(*parts, strict=True))
        normalizer = sum_over_ranks(weight.sum()).clamp(min=1)
        return Assignment(image, anchor, target, valid, weight, normalizer)

    def _assign(self, scene: "_Scene") -> tuple[Tensor, ...]:
        """Image, anchor, target, valid and weight of every slot of a few images."""
        overlap, metric = self._score(scene)
        pair, alive = self._best(scene, metric)
        pair, alive, orphan = self._resolve(scene, overlap, pair, alive)
        metric, overlap = (torch.where(alive & ~orphan, of[pair], 0.0) for of in (metric, overlap))
        owner = scene.owner[pair]
        peak_metric, peak_overlap = (
            of.new_zeros(len(scene.slot)).scatter_reduce_(0, owner, of, "amax") for of in (metric, overlap)
        )
        weight = metric * (peak_overlap / (peak_metric + PEAK_EPSILON))[owner]
        target, cell = torch.where(orphan, 0, scene.slot[owner]), scene.cell[pair]
        image, anchor = scene.image[owner] + scene.first_image, cell % scene.num_anchors
        # In the order of cells: terms then read and write neighbours in memory.
        order = torch.sort(cell, stable=True).indices
        return tuple(part.index_select(0, order) for part in (image, anchor, target, alive, weight))

    def _score(self, scene: "_Scene") -> tuple[Tensor, Tensor]:
        """Overlap and metric of every candidate pair; -1 and 0 for objects that do not count."""
        wanted = scene.wanted
        overlap = overlap_of_planes(wanted.take(scene.owner), scene.boxes.take(scene.cell), self.overlap).clamp_(min=0)
        metric = _power(scene.logits.sigmoid(), self.alpha).mul_(_power(overlap, self.beta))
        if self.validity == "sum":
            counts = scene.sums_up[scene.owner]
            overlap, metric = torch.where(counts, overlap, -1.0), torch.where(counts, metric, 0.0)
        return overlap, metric

    def _best(self, scene: "_Scene", metric: Tensor) -> tuple[Tensor, Tensor]:
        """The pair of every slot, each object's best first, and whether it may become a positive."""
        topk = min(self.topk, scene.num_anchors)
        taken = scene.object_cells.clamp(max=topk)
        number, owner = _expand(taken, sum(min(cells, topk) for cells in scene.cells))
        pair = _by_object_then_best(scene.owner, metric)[scene.first_pair[owner] + number]
        # Not `> 0`: a metric that is not a number has to reach the loss, where the run stops.
        alive = metric[pair] != 0
        if self.zero_metric_positives == "lowest_index":
            alive |= self._fills_up(scene, metric, topk)[pair]
        return pair, alive

    def _fills_up(self, scene: "_Scene", metric: Tensor, topk: int) -> Tensor:
        """Pairs with metric 0 that a top-k over ALL cells of the image takes, when equal metrics go by cell index."""
        positive = metric != 0
        before = torch.cumsum(positive, 0) - positive.long()
        first = before[scene.first_pair]
        positives = torch.zeros_like(first).index_add_(0, scene.owner, positive.long())
        # Cells with metric 0 that come earlier: all earlier cells of the image but the object's positive ones.
        earlier = scene.cell % scene.num_anchors - (before - first[scene.owner])
        filling = ~positive & (earlier < (topk - positives)[scene.owner])
        if self.validity == "sum":
            filling &= scene.sums_up[scene.owner]
        return filling

    def _resolve(self, scene: "_Scene", overlap: Tensor, pair: Tensor, alive: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One live slot per cell: pairs and liveness after conflicts, and whether slot 0 takes it without overlap."""
        cell = scene.cell[pair]
        wishes = cell.new_zeros(scene.num_cells).index_add_(0, cell, alive.long())
        contested = alive & (wishes[cell] > 1)
        # The winner among all boxes that contain the cell, also those that did not choose it.
        winner = _best_pair_of_cell(scene, overlap)[cell]
        pair = torch.where(contested, winner, pair)
        orphan = contested & (overlap[pair] == 0) if self.conflict_scope == "all" else torch.zeros_like(contested)
        number = torch.arange(len(pair), device=pair.device)
        first = torch.full_like(wishes, len(pair)).scatter_reduce_(
            0, cell, torch.where(alive, number, len(pair)), "amin"
        )
        return pair, alive & (first[cell] == number), orphan


class _Scene(NamedTuple):
    """Candidate pairs of a few images, and what scores them. Pairs are ordered by image, slot and anchor."""

    owner: Tensor  # (P,) object of each pair
    cell: Tensor  # (P,) image * A + anchor, counted from the first image of the scene
    logits: Tensor  # (P,) of the object's class
    boxes: BoxPlanes  # of every cell
    wanted: BoxPlanes  # of every object
    slot: Tensor  # (N,) of every object
    image: Tensor  # (N,) counted from the first image of the scene
    first_pair: Tensor  # (N,)
    object_cells: Tensor  # (N,) pairs of every object
    cells: tuple[int, ...]  # the same on the host
    first_image: int
    num_anchors: int
    num_cells: int

    @property
    def sums_up(self) -> Tensor:
        """(N,) whether an object's coordinates add up to more than 0 px."""
        return self.wanted.x1 + self.wanted.y1 + self.wanted.x2 + self.wanted.y2 > 0

    @classmethod
    def of(
        cls, preds: Predictions, targets: Targets, candidates: Candidates, images: slice, overlap: OverlapName
    ) -> "_Scene":
        before, inside = candidates.cells[: images.start], candidates.cells[images]
        cells = tuple(count for image in inside for count in image)
        first_object, first_run = sum(map(len, before)), sum(candidates.runs[: images.start])
        objects = slice(first_object, first_object + len(cells))
        runs = slice(first_run, first_run + sum(candidates.runs[images]))
        anchors = preds.logits.shape[1]
        logits = at_least_float32(preds.logits[:0]).dtype

        object_cells = candidates.object_cells[objects]
        owner = torch.repeat_interleave(object_cells, output_size=sum(cells))
        position, run = _expand(candidates.run_length[runs], sum(cells))
        cell = (candidates.run_first[runs] - images.start * anchors).index_select(0, run).add_(position)
        flat_slot = candidates.objects[objects]
        image, slot = flat_slot // candidates.slots - images.start, flat_slot % candidates.slots
        wanted = targets.boxes.flatten(0, 1)[flat_slot].to(logits)
        label = targets.labels.flatten()[flat_slot]
        return cls(
            owner=owner,
            cell=cell,
            logits=_logits_of_pairs(preds.logits[images], owner, cell, image, label),
            boxes=_box_planes(preds, images, overlap),
            wanted=BoxPlanes.of(wanted, overlap),
            slot=slot,
            image=image,
            first_pair=torch.cumsum(object_cells, 0) - object_cells,
            object_cells=object_cells,
            cells=cells,
            first_image=images.start,
            num_anchors=anchors,
            num_cells=len(inside) * anchors,
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
    return at_least_float32(flat.index_select(0, shift.index_select(0, owner).add_(cell, alpha=by_anchor)))


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
    """Pairs by object, each object's largest metric first, equal metrics by cell; not-a-number counts as largest."""
    if metric.dtype == torch.float32:
        # Bits of non-negative floats order like integers, so one sort does both.
        key = (owner << 32).add_(0x7FFFFFFF).sub_(metric.view(torch.int32) & 0x7FFFFFFF)
        return torch.sort(key, stable=True).indices
    order = torch.sort(metric, descending=True, stable=True).indices
    return order[torch.sort(owner[order], stable=True).indices]


def _best_pair_of_cell(scene: _Scene, overlap: Tensor) -> Tensor:
    """For every cell the pair with the largest overlap there, the first of equal ones; any for cells without."""
    pairs = len(overlap)
    last = max(pairs - 1, 0)
    if overlap.dtype == torch.float32:
        # High bits the overlap, low bits the pair's place from the end: one scatter finds both. -1 stays below all.
        place = torch.arange(last, -1, -1, device=overlap.device)[:pairs]
        key = overlap.view(torch.int32).long().bitwise_left_shift_(32).add_(place)
        best = torch.zeros(scene.num_cells, dtype=torch.int64, device=overlap.device)
        return last - (best.scatter_reduce_(0, scene.cell, key, "amax") & 0xFFFFFFFF).clamp(max=last)
    number = torch.arange(pairs, device=overlap.device)
    peak = overlap.new_full((scene.num_cells,), -1.0).scatter_reduce_(0, scene.cell, overlap, "amax")
    winning = torch.where(overlap == peak.index_select(0, scene.cell), number, pairs)
    winner = torch.full((scene.num_cells,), pairs, device=overlap.device).scatter_reduce_(
        0, scene.cell, winning, "amin"
    )
    # Where the best is not a number nothing equals it: any pair does, its value ends the run.
    return winner.clamp(max=last)
