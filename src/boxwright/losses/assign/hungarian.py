# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""One-to-one matching of queries and objects at the lowest total cost."""

from dataclasses import field
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from boxwright.config import component
from boxwright.errors import ShapeError
from boxwright.losses.assign.per_image import (
    assignment,
    check_objects,
    labels_of_image,
    scores_of_image,
)
from boxwright.losses.assign.trace import Trace, build_trace
from boxwright.losses.normalized_boxes import predicted_boxes, true_boxes
from boxwright.ops.boxes import cxcywh_to_xyxy
from boxwright.ops.overlap import paired_overlap
from boxwright.structures import Assignment, Predictions, Targets, at_least_float32

TRACED = 20  # cheapest queries of each object that a trace lists
TINY = 1e-8  # keeps the logarithm of a probability finite; part of the definition, spec/losses C.3


@component
class Hungarian:
    """Every object takes one query, so that the sum of class, L1 and GIoU costs is the smallest possible.

    Boxes compare as (cx, cy, w, h) in shares of the image. With more objects than queries the costliest objects stay
    out. The weight of every pair is 1, the normalizer their number over all ranks, at least 1.

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

    @torch.no_grad()
    def __call__(self, preds: Predictions, targets: Targets) -> Assignment:
        """The pairs of one layer, by image, then query. Waits for the device.

        Raises:
            ShapeError: labels, boxes or attributes are not ones that the predictions have.
        """
        check_objects(targets, preds.logits.shape[-1])
        chosen = []
        for image in range(len(targets.labels)):
            slots = targets.valid[image].nonzero()[:, 0]
            costs = self.costs(preds, targets, image)
            row, query = linear_sum_assignment(costs[slots].cpu().numpy())
            matched = torch.zeros_like(costs, dtype=torch.bool)
            matched[slots[torch.from_numpy(row)], torch.from_numpy(query)] = True
            chosen.append(matched)
        one = at_least_float32(preds.box_raw[:0]).new_ones(())
        return assignment(preds, chosen, [one.expand(matched.shape) for matched in chosen])

    @torch.no_grad()
    def costs(self, preds: Predictions, targets: Targets, image: int) -> Float[Tensor, "M Q"]:
        """What every object of an image (row; unused slots too) would pay for every query; 0 where not finite."""
        slots = torch.arange(targets.labels.shape[1], device=targets.labels.device)
        found = predicted_boxes(preds)[image]
        wanted = true_boxes(preds, targets, torch.full_like(slots, image), slots)[:, None]
        distance = (found - wanted).abs().sum(dim=-1)
        overlap = paired_overlap(wanted, found, "giou", "cxcywh")
        cost = self.class_gain * self._class_cost(preds, targets, image)
        cost = cost + self.l1_gain * distance + self.giou_gain * (1 - overlap)
        for name, gain in self.attribute_gains.items():
            cost = cost - gain * attribute_probability(preds, targets, name, torch.full_like(slots, image), slots)
        return torch.where(cost.isfinite(), cost, 0.0)

    def _class_cost(self, preds: Predictions, targets: Targets, image: int) -> Float[Tensor, "M Q"]:
        """Focal cost of the object's class, or minus its probability."""
        if self.focal or preds.exclusive or preds.objectness is not None:
            p = scores_of_image(preds, targets, image)
        else:
            p = at_least_float32(preds.logits[image]).softmax(dim=-1).T[labels_of_image(targets, image)]
        if not self.focal:
            return -p
        positive = self.alpha * (1 - p) ** self.gamma * -(p + TINY).log()
        negative = (1 - self.alpha) * p**self.gamma * -(1 - p + TINY).log()
        return positive - negative

    @torch.no_grad()
    def trace(self, preds: Predictions, targets: Targets, pairs: Assignment) -> Trace:
        """The cheapest queries of every object, and all pairs; the metric is minus the cost. Syncs."""
        check_objects(targets, preds.logits.shape[-1])
        parts = []
        for image in range(len(targets.labels)):
            cost = self.costs(preds, targets, image)
            cheap = torch.zeros_like(cost, dtype=torch.bool)
            cheap = cheap.scatter(1, cost.topk(min(TRACED, cost.shape[1]), dim=1, largest=False).indices, True)
            mine = pairs.valid & (pairs.image == image)
            cheap[pairs.target[mine], pairs.anchor[mine]] = True
            slot, query = (cheap & targets.valid[image][:, None]).nonzero(as_tuple=True)
            of_image = torch.full_like(slot, image)
            corners = cxcywh_to_xyxy(predicted_boxes(preds)[image, query])
            overlap = paired_overlap(corners, cxcywh_to_xyxy(true_boxes(preds, targets, of_image, slot)), "iou")
            score = scores_of_image(preds, targets, image)[slot, query]
            parts.append((of_image, slot, query, score, overlap, -cost[slot, query]))
        columns = (torch.cat(column) for column in zip(*parts, strict=True))
        return build_trace(preds, pairs, *columns, otherwise="not_chosen")


def attribute_probability(preds: Predictions, targets: Targets, name: str, image: Tensor, slot: Tensor) -> Tensor:
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
