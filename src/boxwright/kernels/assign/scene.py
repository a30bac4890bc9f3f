# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The candidate pairs of a batch as task-aligned assignment reads them: planes of runs, overlaps and scores."""

from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from boxwright.errors import ShapeError
from boxwright.kernels.chunks import image_chunks, pieces
from boxwright.losses.assign.task_aligned import AssignOverlap
from boxwright.losses.layout.candidates import RUN_CELLS
from boxwright.ops.overlap import BoxPlanes, overlap_of_planes
from boxwright.ops.probiou import GaussianPlanes, probiou_of_planes
from boxwright.structures import Candidates, Predictions, Targets, at_least_float32

EVERY = slice(None)
CACHE_PAIRS = 1 << 15  # pairs worked on at once: a dozen float32 values of each stay in a core's cache


class Scene(NamedTuple):
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
    overlap: AssignOverlap
    wanted: BoxPlanes | GaussianPlanes  # of every object
    boxes: BoxPlanes | GaussianPlanes  # of every cell
    sums: Tensor  # (N,) sum of every object's box numbers
    flat_logits: Tensor  # all logits in memory order
    logit_shift: Tensor  # (N,) where the logit of the object's class at cell 0 would stand
    logit_step: int  # from a cell to the next
    log_norm: Tensor | None  # of every cell: what exclusive classes' exponentials are divided by
    objectness: Tensor | None  # of every cell: probability that scores are multiplied with
    num_anchors: int
    num_cells: int

    @property
    def sums_up(self) -> Tensor:
        """(N,) whether an object's box numbers add up to more than 0."""
        return self.sums > 0

    def cells(self, runs: slice = EVERY) -> Tensor:
        """Cell of every place of some runs."""
        first, length = self.candidates.run_first[runs], self.candidates.run_length[runs]
        return torch.minimum(first + self.lane, first + length - 1)

    def overlaps(self, owner: Tensor, cell: Tensor) -> Tensor:
        """Overlap of each run's object with the boxes of the run's cells; may be negative."""
        wanted, boxes = self.wanted.take(owner), self.boxes.take(cell)
        if isinstance(wanted, GaussianPlanes):
            assert isinstance(boxes, GaussianPlanes)
            return probiou_of_planes(wanted, boxes)
        assert isinstance(boxes, BoxPlanes)
        assert self.overlap != "probiou"
        return overlap_of_planes(wanted, boxes, self.overlap)

    def scores(self, owner: Tensor, cell: Tensor) -> Tensor:
        """Probability that the cells give to the objects' classes; a new tensor."""
        place = torch.add(self.logit_shift.index_select(0, owner), cell, alpha=self.logit_step)
        logits = at_least_float32(self.flat_logits.index_select(0, place.view(-1))).view(place.shape)
        if self.log_norm is None:
            scores = logits.sigmoid_()
        else:
            scores = logits.sub_(self.log_norm.index_select(0, cell.view(-1)).view(cell.shape)).exp_()
        if self.objectness is not None:
            scores.mul_(self.objectness.index_select(0, cell.view(-1)).view(cell.shape))
        return scores

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
    def of(cls, preds: Predictions, targets: Targets, candidates: Candidates, overlap: AssignOverlap) -> "Scene":
        """The scene of a batch.

        Raises:
            ShapeError: the overlap is not one of the targets' kind of boxes.
        """
        if (overlap == "probiou") != targets.oriented:
            raise ShapeError(
                f"TaskAligned.overlap: expected {'probiou' if targets.oriented else 'one of axis-aligned boxes'} for "
                f"targets with {targets.boxes.shape[-1]} numbers a box, got {overlap}"
            )
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
            overlap=overlap,
            wanted=_planes(wanted, overlap),
            boxes=_box_planes(preds, overlap),
            sums=reduce(torch.add, wanted.unbind(-1)),
            flat_logits=preds.logits.as_strided((max(reach, 0),), (1,)),
            logit_shift=image * (by_image - anchors * by_anchor) + label * by_class,
            logit_step=by_anchor,
            log_norm=_log_norm(preds) if preds.exclusive else None,
            objectness=None
            if preds.objectness is None
            else at_least_float32(preds.objectness.detach()).sigmoid().flatten(),
            num_anchors=anchors,
            num_cells=batch * anchors,
        )


def _planes(boxes: Tensor, overlap: AssignOverlap) -> BoxPlanes | GaussianPlanes:
    return GaussianPlanes.of(boxes) if overlap == "probiou" else BoxPlanes.of(boxes, overlap)


def _box_planes(preds: Predictions, overlap: AssignOverlap) -> BoxPlanes | GaussianPlanes:
    """Decoded boxes of every cell of the batch."""
    batch, anchors, raw = preds.box_raw.shape
    chunks = image_chunks([anchors * raw] * batch, preds.box_raw.device)
    parts = [_planes(preds.boxes_of(images).flatten(0, 1), overlap) for images in chunks]
    joined = (
        None if planes[0] is None else torch.cat([plane for plane in planes if plane is not None])
        for planes in zip(*parts, strict=True)
    )
    return type(parts[0])._make(joined)


def _log_norm(preds: Predictions) -> Tensor:
    """Logarithm of the sum of exponentials of exclusive classes; without objectness, background with logit 0 joins."""
    batch, anchors, classes = preds.logits.shape
    chunks = image_chunks([anchors * classes] * batch, preds.logits.device)
    total = torch.cat([torch.logsumexp(at_least_float32(preds.logits[images]), dim=-1) for images in chunks]).flatten()
    return torch.logaddexp(total, torch.zeros_like(total)) if preds.objectness is None else total
