# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Hungarian matching of several layers at one host sync; costs exist for an image's own objects only.

They are (objects, queries) numbers, never padded to the fullest image, computed by contiguous planes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from boxwright.kernels.chunks import image_chunks
from boxwright.losses.assign.hungarian import TINY, Hungarian, attribute_probability
from boxwright.losses.normalized_boxes import predicted_boxes, true_boxes
from boxwright.ops.collective import sum_over_ranks
from boxwright.ops.constants import constant
from boxwright.ops.objects import check_labels, with_objects
from boxwright.ops.overlap import BoxPlanes, overlap_of_planes
from boxwright.ops.scores import class_probabilities
from boxwright.structures import Assignment, Grid, ObjectRows, Predictions, Targets, at_least_float32

CACHE_COSTS = 1 << 17  # costs computed at once on a CPU: a dozen float32 values of each stay in a core's cache


def prepare(assigner: Hungarian, targets: Targets, grid: Grid | None = None) -> Targets:
    """The targets with their objects counted on the host; unchanged where that was done.

    Raises:
        ShapeError: a valid slot has a negative label or a box that is not finite.
    """
    return with_objects(targets)


def hungarian(assigner: Hungarian, preds: Predictions, targets: Targets) -> Assignment:
    """The pairs of one layer, by image, then query. Costs one host sync, and one more for targets not prepared.

    Raises:
        ShapeError: labels, boxes or attributes are not ones that the predictions have.
    """
    return assign_many(assigner, [preds], targets)[0]


@torch.no_grad()
def assign_many(assigner: Hungarian, layers: Sequence[Predictions], targets: Targets) -> list[Assignment]:
    """The pairs of several layers, each matched for itself. Costs one host sync for all of them.

    Raises:
        ShapeError: labels, boxes or attributes are not ones that the predictions have.
    """
    objects = with_objects(targets).objects
    assert objects is not None
    costs = [costs_of(assigner, preds, targets, objects) for preds in layers]
    on_host = torch.cat([cost.flatten() for cost in costs]).cpu().numpy()
    found, first = [], 0
    for cost in costs:
        found.append(_solve(on_host[first : first + cost.numel()].reshape(cost.shape), objects.counts))
        first += cost.numel()
    return _assignments(found, objects, costs[0])


@torch.no_grad()
def costs_of(assigner: Hungarian, preds: Predictions, targets: Targets, objects: ObjectRows) -> Tensor:
    """Cost of every object (N) with every query (Q) of its image; 0 where it would not be finite.

    Raises:
        ShapeError: labels, boxes or attributes are not ones that the predictions have.
    """
    check_labels(objects, preds.logits.shape[-1])
    near = _Planes.of(predicted_boxes(preds))
    wanted = _Planes.of(true_boxes(preds, targets, objects.image, objects.slot)[:, None])
    label = targets.labels[objects.image, objects.slot]
    queries = preds.logits.shape[1]
    found = near.sides[0].new_empty(len(label), queries)
    for images in image_chunks([count * queries for count in objects.counts], found.device, CACHE_COSTS):
        first = sum(objects.counts[: images.start])
        rows = slice(first, first + sum(objects.counts[images]))
        image = objects.image[rows]
        cost = _class_cost(assigner, preds, image, label[rows]).mul_(assigner.class_gain)
        distance, overlap = _compare(near.take(image), wanted.take(rows))
        cost.add_(distance, alpha=assigner.l1_gain).add_(overlap.neg_().add_(1), alpha=assigner.giou_gain)
        for name, gain in assigner.attribute_gains.items():
            cost -= gain * attribute_probability(preds, targets, name, image, objects.slot[rows])
        found[rows] = torch.where(cost.isfinite(), cost, torch.zeros_like(cost))
    return found


def _class_cost(assigner: Hungarian, preds: Predictions, image: Tensor, label: Tensor) -> Tensor:
    """(n, Q) class cost of objects of these images and classes."""
    if assigner.focal and not preds.exclusive and preds.objectness is None:
        p = at_least_float32(preds.logits[image, :, label]).sigmoid()
    elif preds.exclusive or preds.objectness is not None or assigner.focal:
        p = class_probabilities(preds.logits, preds.exclusive, preds.objectness)[image, :, label]
    else:
        p = at_least_float32(preds.logits).softmax(dim=-1)[image, :, label]
    if not assigner.focal:
        return -p
    rest = 1 - p
    positive = (p + TINY).log_().mul_(rest**assigner.gamma).mul_(-assigner.alpha)
    return positive.add_(rest.add_(TINY).log_().mul_(p**assigner.gamma), alpha=1 - assigner.alpha)


class _Planes(NamedTuple):
    """Boxes by number: contiguous planes, so that comparing many pairs reads and writes neighbours in memory."""

    corners: BoxPlanes
    centre: tuple[Tensor, Tensor]
    sides: tuple[Tensor, Tensor]

    @classmethod
    def of(cls, boxes: Tensor) -> "_Planes":
        """Planes of (cx, cy, w, h)."""
        x, y, w, h = (plane.contiguous() for plane in boxes.unbind(-1))
        return cls(BoxPlanes(x - w / 2, y - h / 2, x + w / 2, y + h / 2, None), (x, y), (w, h))

    def take(self, index: Tensor | slice) -> "_Planes":
        """The rows at some positions."""

        def rows(plane: Tensor) -> Tensor:
            return plane[index] if isinstance(index, slice) else plane.index_select(0, index)

        (x, y), (w, h), (x1, y1, x2, y2, _) = self.centre, self.sides, self.corners
        corners = BoxPlanes(rows(x1), rows(y1), rows(x2), rows(y2), None)
        return _Planes(corners, (rows(x), rows(y)), (rows(w), rows(h)))


def _compare(near: _Planes, true: _Planes) -> tuple[Tensor, Tensor]:
    """L1 distance and GIoU of boxes (n, Q) with the one box of each row (n, 1)."""
    pairs = zip((*near.centre, *near.sides), (*true.centre, *true.sides), strict=True)
    distance, *others = ((a - b).abs_() for a, b in pairs)
    for other in others:
        distance += other
    return distance, overlap_of_planes(true.corners, near.corners, "giou", true.sides, near.sides)


def _solve(cost: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    """(2, P) object row and query of every pair, by image, then query."""
    pairs, first = [np.zeros((2, 0), dtype=np.int64)], 0
    for count in counts:
        row, query = linear_sum_assignment(cost[first : first + count])
        order = np.argsort(query)
        pairs.append(np.stack((row[order] + first, query[order])))
        first += count
    return np.concatenate(pairs, axis=1)


def _assignments(found: Sequence[np.ndarray], objects: ObjectRows, like: Tensor) -> list[Assignment]:
    sizes = [pairs.shape[1] for pairs in found]
    # One copy to the device for all layers, and one collective.
    joined = torch.from_numpy(np.concatenate(found, axis=1))
    if like.device.type == "cuda":
        joined = joined.pin_memory()
    row, query = joined.to(like.device, non_blocking=True)
    normalizers = sum_over_ranks(constant(sizes, like)).clamp(min=1)
    weight = like.new_ones(len(row))
    columns = (objects.image[row], query, objects.slot[row], weight > 0, weight)
    layers = zip(*(column.split(sizes) for column in columns), normalizers.unbind(), strict=True)
    return [Assignment(*layer) for layer in layers]
