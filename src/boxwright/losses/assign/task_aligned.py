# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Task-aligned assignment: each object takes the candidates that score and fit best together."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from boxwright.config import component
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

    A cell wanted by several objects goes to the one that overlaps its box most. The weight of a pair is its metric, scaled so
    that an object's best pair has the object's best overlap; the normalizer is the sum of weights over all ranks, at least 1.
    Only pairs of `Targets.candidates` are scored: no tensor of (images, objects, anchors) exists.

    Source: TOOD, Feng et al. 2021, arXiv:2108.07755. Deviation: overlap is CIoU, as YOLOv8 trains.
    """

    kind: Literal["task_aligned"] = "task_aligned"
    topk: int = 10
    alpha: float = 0.5
    beta: float = 6.0
    overlap: OverlapName = "ciou"
    # A box with fewer than topk non-zero metrics: drop the rest, or fill up in the order of anchors (compatibility).
    zero_metric_positives: Literal["drop", "lowest_index"] = "drop"
    # Who may win a contested cell where every overlap is 0: boxes that contain it, or slot 0 (compatibility).
    conflict_scope: Literal["containing", "all"] = "containing"
    # Which objects count: valid slots, or those of them whose coordinates add up to more than 0 (compatibility).
    validity: Literal["mask", "sum"] = "mask"

    @torch.no_grad()
    def __call__(self, preds: Predictions, targets: Targets) -> Assignment:
        """Pairs, with at most `topk` slots for each object; targets without prepared candidates cost one host sync."""
        candidates = targets.candidates or lay_out_candidates(targets, preds.grid).to(targets.boxes.device)
        chunks = image_chunks([sum(cells) for cells in candidates.cells], preds.logits.device, CACHE_PAIRS)
        parts = [self._assign(_Scene.of(preds, targets, candidates, images)) for images in chunks]
        image, anchor, target, valid, weight = (torch.cat(part) for part in zip(*parts, strict=True))
        normalizer = sum_over_ranks(weight.sum()).clamp(min=1)
        return Assignment(image, anchor, target, valid, weight, normalizer)

    def _assign(self, scene: "_Scene") -> tuple[Tensor, ...]:
        """Image, anchor, target, valid and weight of every slot of a few images."""
        overlap, metric = self._score(scene)
        pair, alive = self._best(scene, metric)
        pair, alive, orphan = self._resolve(scene, overlap, pair, alive)
        metric, overlap = (torch.where(alive & ~orphan, of[pair], 0.0) for of in (metric, overlap))
        owner = scene.object[pair]
        peak_metric, peak_overlap = (
            of.new_zeros(scene.num_objects).scatter_reduce_(0, owner, of, "amax") for of in (metric, overlap)
        )
        weight = metric * (peak_overlap / (peak_metric + PEAK_EPSILON))[owner]
        cell, slot = scene.cell[pair], torch.where(orphan, 0, scene.slot[owner])
        return scene.image[owner], cell % scene.num_anchors, slot, alive, weight

    def _score(self, scene: "_Scene") -> tuple[Tensor, Tensor]:
        """Overlap and metric of every candidate pair; -1 and 0 for objects that do not count."""
        boxes, wanted = scene.boxes, scene.wanted
        overlap = overlap_of_planes(wanted.take(scene.object), boxes.take(scene.cell), self.overlap).clamp_(min=0)
        metric = _power(scene.logits.sigmoid_(), self.alpha).mul_(_power(overlap, self.beta))
        if self.validity == "sum":
            counts = (wanted.x1 + wanted.y1 + wanted.x2 + wanted.y2 > 0)[scene.object]
            overlap, metric = torch.where(counts, overlap, -1.0), torch.where(counts, metric, 0.0)
        return overlap, metric

    def _best(self, scene: "_Scene", metric: Tensor) -> tuple[Tensor, Tensor]:
        """The pair of each of the (objects x topk) slots, best first, and whether it may be positive."""
        topk = min(self.topk, scene.num_anchors)
        taken = scene.object_cells.clamp(max=topk)
        slots = sum(min(cells, topk) for cells in scene.cells_per_object)
        owner = torch.repeat_interleave(taken, output_size=slots)
        return owner, owner
