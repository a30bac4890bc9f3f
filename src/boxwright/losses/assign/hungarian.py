# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""One-to-one matching of queries and objects at the lowest total cost."""

from collections.abc import Sequence
from dataclasses import field
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from boxwright.config import component
from boxwright.errors import ShapeError
from boxwright.kernels.chunks import image_chunks
from boxwright.losses.assign.trace import Trace, build_trace
from boxwright.losses.normalized_boxes import predicted_boxes, true_boxes
from boxwright.ops.boxes import cxcywh_to_xyxy
from boxwright.ops.collective import sum_over_ranks
from boxwright.ops.constants import constant
from boxwright.ops.objects import check_labels, with_objects
from boxwright.ops.overlap import BoxPlanes, overlap_of_planes, paired_overlap
from boxwright.ops.scores import class_probabilities
from boxwright.structures import Assignment, Grid, ObjectRows, Predictions, Targets, at_least_float32

CACHE_COSTS = 1 << 17  # costs computed at once on a CPU: a dozen float32 values of each stay in a core's cache
TRACED = 20  # cheapest queries of each object that a trace lists
TINY = 1e-8  # keeps the logarithm of a probability finite; part of the definition, spec/losses C.3


@component
class Hungarian:
    """Every object takes one query, so that the sum of class, L1 and GIoU costs is the smallest possible.

    Boxes compare as (cx, cy, w, h) in shares of the image. With more objects than queries the costliest objects stay
    out. The weight of every pair is 1, the normalizer their number over all ranks, at least 1.
    Costs exist for an image's own objects only: (objects, queries) numbers, never padded to the fullest image.

    The solver runs on the host: one host sync for all predictions of a step together (and one more for targets that
    were not prepared).

    Source: DETR, Carion et al. 2020, arXiv:2005.12872; focal cost: Deformable DETR, Zhu et al. 2020, arXiv:2010.04159.
    """

    kind: Literal["hungarian"] = "hungarian"
    class_gain: float = 2.0
    l1_gain: float = 5.0
    giou_gain: float = 2.0
    focal: bool = True  # class cost by focal loss; otherwise minus the probability
    alpha: float = 0.25
    gamma: float = 2.0
    # Attribute name -> factor of minus its probability; attributes that are not named do not take part.
    attribute_gains: dict[str, float] = field(default_factory=dict)

    needs_grid: ClassVar[bool] = False

    def prepare(self, targets: Targets, grid: Grid | None = None) -> Targets:
        """The targets with their objects counted on the host; unchanged where that was done.

        Raises:
            ShapeError: a valid slot has a negative label or a box that is not finite.
        """
        return with_objects(targets)

    def __call__(self, preds: Predictions, targets: Targets) -> Assignment:
        """The pairs of one layer, by image, then query. Costs one host sync.

        Raises:
            ShapeError: labels, boxes or attributes are not ones that the predictions have.
        """
        return self.assign_many([preds], targets)[0]

    @torch.no_grad()
    def assign_many(self, layers: Sequence[Predictions], targets: Targets) -> list[Assignment]:
        """The pairs of several layers, each matched for itself. Costs one host sync for all of them.

        Raises:
            ShapeError: labels, boxes or attributes are not ones that the predictions have.
        """
        objects = with_objects(targets).objects
        assert objects is not None
        costs = [self.costs(preds, targets, objects) for preds in layers]
        on_host = torch.cat([cost.flatten() for cost in costs]).cpu().numpy()
        found, first = [], 0
        for cost in costs:
            found.append(_solve(on_host[first : first + cost.numel()].reshape(cost.shape), objects.counts))
            first += cost.numel()
        return _assignments(found, objects, costs[0])

    @torch.no_grad()
    def trace(self, preds: Predictions, targets: Targets, pairs: Assignment) -> Trace:
        """The cheapest queries of every object, and all pairs; the metric is minus the cost. Syncs."""
        objects = with_objects(targets).objects
        assert objects is not None
        cost = self.costs(preds, targets, objects)
        label = targets.labels[objects.image, objects.slot]
        near = cost.topk(min(TRACED, cost.shape[1]), dim=1, largest=False).indices
        row = torch.arange(len(cost), device=cost.device)
        index = torch.full(targets.labels.shape, -1, dtype=torch.int64, device=cost.device)
        index[objects.image, objects.slot] = row
        held = index[pairs.image, pairs.target] * cost.shape[1] + pairs.anchor
        keys = torch.cat(((row[:, None] * cost.shape[1] + near).flatten(), held[pairs.valid]))
        keys = keys.unique()  # type: ignore[no-untyped-call]
        row, query = keys // cost.shape[1], keys % cost.shape[1]
        image, slot = objects.image[row], objects.slot[row]
        objectness = None if preds.objectness is None else preds.objectness[image, query]
        scores = class_probabilities(preds.logits[image, query], preds.exclusive, objectness)
        corners = cxcywh_to_xyxy(predicted_boxes(preds)[image, query])
        overlap = paired_overlap(corners, cxcywh_to_xyxy(true_boxes(preds, targets, image, slot)), "iou")
        score = scores.gather(1, label[row][:, None])[:, 0]
        columns = (image, slot, query, score, overlap, -cost[row, query])
        return build_trace(preds, pairs, *columns, otherwise="not_chosen")

    @torch.no_grad()
    def costs(self, preds: Predictions, targets: Targets, objects: ObjectRows) -> Tensor:
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
            cost = self._class_cost(preds, image, label[rows]).mul_(self.class_gain)
            distance, overlap = _compare(near.take(image), wanted.take(rows))
            cost.add_(distance, alpha=self.l1_gain).add_(overlap.neg_().add_(1), alpha=self.giou_gain)
            for name, gain in self.attribute_gains.items():
                cost -= gain * _attribute_probability(preds, targets, name, image, objects.slot[rows])
            found[rows] = torch.where(cost.isfinite(), cost, torch.zeros_like(cost))
        return found

    def _class_cost(self, preds: Predictions, image: Tensor, label: Tensor) -> Tensor:
        """(n, Q) class cost of objects of these images and classes."""
        if self.focal and not preds.exclusive and preds.objectness is None:
            p = at_least_float32(preds.logits[image, :, label]).sigmoid()
        elif preds.exclusive or preds.objectness is not None or self.focal:
            p = class_probabilities(preds.logits, preds.exclusive, preds.objectness)[image, :, label]
        else:
            p = at_least_float32(preds.logits).softmax(dim=-1)[image, :, label]
        if not self.focal:
            return -p
        rest = 1 - p
        positive = (p + TINY).log_().mul_(rest**self.gamma).mul_(-self.alpha)
        return positive.add_(rest.add_(TINY).log_().mul_(p**self.gamma), alpha=1 - self.alpha)


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


def _attribute_probability(preds: Predictions, targets: Targets, name: str, image: Tensor, slot: Tensor) -> Tensor:
    """(n, Q) probability of each object's label of an attribute; 0 where it is not labelled."""
    logits, labels = (preds.attribute_logits or {}).get(name), (targets.attributes or {}).get(name)
    if logits is None or labels is None or labels.ndim != 2:
        got = [f"logits {None if logits is None else tuple(logits.shape)}"]
        got.append(f"labels {None if labels is None else tuple(labels.shape)}")
        raise ShapeError(
            f"Hungarian.attribute_gains: '{name}' expects logits (B, Q, C) in Predictions.attribute_logits and "
            f"labels (B, M) in Targets.attributes, got {', '.join(got)}"
        )
    label = labels[image, slot]
    p = at_least_float32(logits).softmax(dim=-1)[image, :, label.clamp(min=0)]
    return torch.where((label >= 0)[:, None], p, torch.zeros_like(p))


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
