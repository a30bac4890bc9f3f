# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Task-aligned assignment over the candidate pairs of a batch: no tensor of (images, objects, anchors) exists.

The pairs stand in runs (`scene.Scene`), laid out on the host before the step, so nothing waits for the device.
"""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from boxwright.kernels.assign.fits import fit_of_runs, fit_of_shortlist
from boxwright.kernels.assign.scene import Scene
from boxwright.kernels.rows import readable
from boxwright.kernels.softplus import power
from boxwright.losses.assign.compat import ZeroMetric
from boxwright.losses.assign.task_aligned import PEAK_EPSILON, TaskAligned
from boxwright.losses.layout.candidates import RUN_CELLS, LayoutRules, check_candidates, lay_out_candidates
from boxwright.ops.collective import sum_over_ranks
from boxwright.structures import Assignment, Grid, Predictions, Targets


def prepare(assigner: TaskAligned, targets: Targets, grid: Grid) -> Targets:
    """The targets with their candidate pairs laid out on the host; unchanged where that was done.

    Raises:
        ShapeError: a valid slot has a negative label or a box that is not finite, or a cell has several priors.
    """
    if targets.candidates is not None:
        return targets
    laid_out = lay_out_candidates(targets, grid, layout_rules(assigner, grid))
    return targets.with_prepared(candidates=laid_out.to(targets.boxes.device))


def layout_rules(assigner: TaskAligned, grid: Grid) -> LayoutRules:
    """What decides which cells an object may take."""
    second_stride = float(grid.level_strides[:2][-1])
    return LayoutRules(
        level_range=assigner.level_range,
        min_side=second_stride if assigner.min_side == "second_stride" else assigner.min_side,
        smallest_side=assigner.smallest_side,
        swapped_sides=assigner.swapped_size_filter,
        # Elsewhere they hold no cell anyway.
        flat_objects=assigner.validity == "sum" and (assigner.min_side != 0 or assigner.overlap == "probiou"),
    )


@torch.no_grad()
def task_aligned(assigner: TaskAligned, preds: Predictions, targets: Targets) -> Assignment:
    """Pairs, with at most `topk` slots for each object; targets without prepared candidates cost one host sync.

    Raises:
        ShapeError: as the assigner, or the targets were prepared for another grid, or with other rules.
    """
    # 1. Candidates.
    grid = preds.cells
    candidates = prepare(assigner, targets, grid).candidates
    assert candidates is not None
    check_candidates(candidates, targets, grid, preds.logits.shape[-1], layout_rules(assigner, grid))
    scene = Scene.of(preds, targets, candidates, assigner.overlap)
    # 2. What each is worth.
    overlap, metric = _alignment(assigner, scene, preds, targets)
    # 3. Every object takes its best candidates.
    pair = _best(scene, metric, assigner.topk)
    alive = _may_match(assigner, scene, metric, pair)
    # 4. Contested cells go to one of their objects.
    pair, alive, cell, contested = _settled(scene, overlap, pair, alive)
    orphan = _orphans(assigner, overlap, pair, contested)
    owner = scene.owner_of(pair)
    image = torch.div(cell, scene.num_anchors, rounding_mode="floor")
    anchor, target = cell - image * scene.num_anchors, scene.slot.index_select(0, owner).masked_fill_(orphan, 0)
    counts = alive & ~orphan
    if assigner.topk2 is not None and assigner.topk2 != assigner.topk:
        alive = among_best(
            image * candidates.slots + target,
            torch.where(counts, metric.view(-1).index_select(0, pair), 0.0),
            alive,
            cell,
            anchor,
            groups=len(candidates.cells) * candidates.slots,
            topk=assigner.topk2,
            zero_metric=assigner.zero_metric_positives,
        )
        counts = alive & ~orphan
    # 5. Weights.
    weight = _weights(scene, overlap, metric, pair, owner, counts)
    order = _in_cells(cell, alive)
    image, anchor, target, alive, weight = (
        part.index_select(0, order) for part in (image, anchor, target, alive, weight)
    )
    normalizer = sum_over_ranks(weight.sum()).clamp(min=1)
    return Assignment(image, anchor, target, alive, weight, normalizer, all_valid=readable(alive))


def _alignment(assigner: TaskAligned, scene: Scene, preds: Predictions, targets: Targets) -> tuple[Tensor, Tensor]:
    """Overlap (or fit) and metric of every pair; -1 and 0 for objects that do not count."""
    overlap, metric = (scene.sums.new_empty(RUN_CELLS, len(scene.owner)) for _ in range(2))
    shortlist = getattr(assigner.fit, "shortlist", None)
    for runs in scene.pieces():
        owner, cell = scene.owner[runs], scene.cells(runs)
        fit = scene.overlaps(owner, cell).clamp_(min=0)
        if assigner.fit is not None and shortlist is None:
            fit = fit_of_runs(assigner.fit, preds, targets, scene, owner, cell, fit)
        overlap[:, runs], metric[:, runs] = fit, _metric(assigner, scene, owner, cell, fit)
    if assigner.fit is not None and shortlist is not None:
        topk = shortlist * assigner.topk
        pair = _best(scene, metric, topk)
        overlap = fit_of_shortlist(assigner.fit, preds, targets, scene, pair, overlap, min(topk, scene.num_anchors))
        overlap = _last_repeated(scene, overlap)
        for runs in scene.pieces():
            metric[:, runs] = _metric(assigner, scene, scene.owner[runs], scene.cells(runs), overlap[:, runs])
    _leave_out(assigner, scene, overlap, metric)
    return overlap, metric


def _metric(assigner: TaskAligned, scene: Scene, owner: Tensor, cell: Tensor, fit: Tensor) -> Tensor:
    return power(scene.scores(owner, cell), assigner.alpha).mul_(power(fit, assigner.beta))


def _best(scene: Scene, metric: Tensor, topk: int) -> Tensor:
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


def _settled(scene: Scene, overlap: Tensor, pair: Tensor, alive: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One live slot per cell: pairs and liveness after conflicts, their cells, and which slots were in one."""
    cell = scene.cell_of(pair)
    wishes = cell.new_zeros(scene.num_cells).index_add_(0, cell, alive.long())
    contested = alive & (wishes.index_select(0, cell) > 1)
    # The winner among all boxes that contain the cell, also those that did not choose it.
    run = _best_run_of_cell(scene, overlap).index_select(0, cell)
    # Where the best is not a number no run is: the pair stays, and its value ends the training.
    winner = (cell - scene.candidates.run_first[run]) * len(scene.owner) + run
    pair = torch.where(contested & (run >= 0), winner, pair)
    number = torch.arange(len(pair), device=pair.device)
    first = torch.full_like(wishes, len(pair)).scatter_reduce_(0, cell, torch.where(alive, number, len(pair)), "amin")
    return pair, alive & (first.index_select(0, cell) == number), cell, contested


def _weights(scene: Scene, overlap: Tensor, metric: Tensor, pair: Tensor, owner: Tensor, counts: Tensor) -> Tensor:
    """Weight of every slot: the metric, scaled to the object's best overlap; 0 for those that do not count."""
    metric, overlap = (torch.where(counts, plane.view(-1).index_select(0, pair), 0.0) for plane in (metric, overlap))
    peak_metric, peak_overlap = (
        values.new_zeros(len(scene.slot)).scatter_reduce_(0, owner, values, "amax") for values in (metric, overlap)
    )
    return metric * (peak_overlap / (peak_metric + PEAK_EPSILON)).index_select(0, owner)


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
    winning = torch.where(overlap == peak.index_select(0, cell), number.repeat(len(scene.lane)), last + 1)
    best = torch.full((scene.num_cells,), last + 1, device=overlap.device).scatter_reduce_(0, cell, winning, "amin")
    return torch.where(best > last, -1, best)


def expand(counts: Int64[Tensor, " N"], total: int) -> tuple[Int64[Tensor, " total"], Int64[Tensor, " total"]]:
    """For counts (2, 3): positions 0 1 0 1 2 within each, and the owners 0 0 1 1 1. The total is known on the host."""
    owner = torch.repeat_interleave(counts, output_size=total)
    first = torch.cumsum(counts, 0) - counts
    return torch.arange(total, device=counts.device).sub_(first.index_select(0, owner)), owner


def by_object_then_best(owner: Int64[Tensor, " P"], metric: Float[Tensor, " P"]) -> Int64[Tensor, " P"]:
    """Order: by object, each object's largest metric first, equal ones as they stood; not-a-number counts as largest.

    -1 marks what comes last.
    """
    if metric.dtype == torch.float32:
        # Bits of non-negative floats order like integers, so one sort does both. -1 comes last.
        bits = (metric.view(torch.int32) & 0x7FFFFFFF).masked_fill_(metric < 0, -1)
        return torch.sort((owner << 32).add_(0x7FFFFFFF).sub_(bits), stable=True).indices
    order = torch.sort(metric, descending=True, stable=True).indices
    return order[torch.sort(owner[order], stable=True).indices]


def among_best(
    group: Int64[Tensor, " P"],
    metric: Float[Tensor, " P"],
    alive: Bool[Tensor, " P"],
    cell: Int64[Tensor, " P"],
    anchor: Int64[Tensor, " P"],
    *,
    groups: int,
    topk: int,
    zero_metric: ZeroMetric,
) -> Bool[Tensor, " P"]:
    """Whether each live pair is among its group's `topk` best by metric, the lowest cell first among equal ones.

    `group` numbers image and slot (below `groups`), `cell` image and anchor. Pairs with metric 0 are dropped, or
    compete with all other anchors of the image, which have metric 0 too, by anchor index (compatibility).
    """
    in_cells = torch.sort(cell, stable=True).indices
    live_metric = metric.masked_fill(~alive, -1.0).index_select(0, in_cells)
    of_group = group.index_select(0, in_cells)
    best = in_cells[by_object_then_best(of_group, live_metric)]
    none = torch.zeros(groups, dtype=torch.int64, device=group.device)
    members = none.index_add(0, group, torch.ones_like(group))
    first = torch.cumsum(members, 0) - members
    number = torch.arange(len(group), device=group.device)
    place = torch.empty_like(group).index_copy_(0, best, number)
    positive = alive & (metric != 0)
    kept = positive & (place - first.index_select(0, group) < topk)
    if zero_metric == "drop":
        return kept
    by_cell = in_cells[torch.sort(of_group, stable=True).indices]
    flags = positive.long()
    so_far = torch.cumsum(flags.index_select(0, by_cell), 0) - flags.index_select(0, by_cell)
    before = torch.empty_like(group).index_copy_(0, by_cell, so_far)
    positives = none.index_add(0, group, flags)
    # Positive pairs of earlier groups do not count.
    before = before - (torch.cumsum(positives, 0) - positives).index_select(0, group)
    ahead = positives.index_select(0, group) + anchor - before
    return kept | (alive & ~positive & (ahead < topk))


# -- compatibility, see `losses/assign/compat.py` ------------------------------------------------------------------


def _leave_out(assigner: TaskAligned, scene: Scene, overlap: Tensor, metric: Tensor) -> None:
    """Writes overlap -1 and metric 0 at objects that the switch `validity` does not count."""
    if assigner.validity == "sum":
        ignored = ~scene.sums_up.index_select(0, scene.owner)
        overlap.masked_fill_(ignored, -1.0)
        metric.masked_fill_(ignored, 0.0)


def _may_match(assigner: TaskAligned, scene: Scene, metric: Tensor, pair: Tensor) -> Tensor:
    """Whether the pair of each slot may become a positive (`zero_metric_positives`)."""
    # Not `> 0`: a metric that is not a number has to reach the loss, where the run stops.
    alive = metric.view(-1).index_select(0, pair) != 0
    if assigner.zero_metric_positives == "lowest_index":
        alive |= _fills_up(assigner, scene, metric, min(assigner.topk, scene.num_anchors)).view(-1)[pair]
    return alive


def _orphans(assigner: TaskAligned, overlap: Tensor, pair: Tensor, contested: Tensor) -> Tensor:
    """Which slots' cell falls to slot 0 as no object overlaps it (`conflict_scope`)."""
    if assigner.conflict_scope == "all":
        return contested & (overlap.view(-1)[pair] == 0)
    return torch.zeros_like(contested)


def _fills_up(assigner: TaskAligned, scene: Scene, metric: Tensor, topk: int) -> Tensor:
    """Pairs with metric 0 that a top-k over ALL cells of the image takes, when equal metrics go by cell index."""
    positive = (metric != 0) & (scene.lane < scene.candidates.run_length)
    in_order = positive.t().flatten().long()
    before = torch.cumsum(in_order, 0) - in_order
    first = before[scene.first_run * len(scene.lane)]
    positives = torch.zeros_like(first).index_add_(0, scene.owner, positive.long().sum(dim=0))
    # Cells with metric 0 that come earlier: all earlier cells of the image but the object's positive ones.
    earlier = scene.cells() % scene.num_anchors - (before.view(-1, len(scene.lane)).t() - first[scene.owner])
    filling = ~positive & (earlier < (topk - positives)[scene.owner])
    if assigner.validity == "sum":
        filling &= scene.sums_up[scene.owner]
    return filling
