# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Named attributes of objects ("loc", "action", ...) beside their class, for dense heads and set prediction."""

import math
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from boxwright.config import component
from boxwright.errors import ConfigError, ShapeError
from boxwright.losses.functional import bce_with_logits, cross_entropy
from boxwright.losses.terms.base import Divisor, Scope
from boxwright.ops.collective import sum_over_ranks
from boxwright.ops.constants import constant
from boxwright.structures import Assignment, Predictions, Targets, rows_at

UNKNOWN = -1  # label of what nobody looked at


@component
class Attribute:
    """Cost of one attribute, mean over the matched pairs whose label is known, weighted by the pairs' quality.

    Labels (B, M): one of several classes, by cross-entropy. Labels (B, M, C): each class apart, 0 to 1, by the mean
    binary cross-entropy of its known classes. -1 is not labelled.
    The divisor is the sum of the pairs' weights (times the weight of the label's class) over all ranks; for dense heads
    at least 1, so that a few poor pairs do not count in full. No gradient reaches the matching.

    Source: spec/losses E.10, a definition of this project.
    """

    kind: Literal["attribute"] = "attribute"
    name: str
    # One number for each class: factors in a weighted mean, over pairs or, of several labels, over a pair's classes.
    weights: tuple[float, ...] | None = None
    missing: Literal["error", "skip"] = "error"  # predictions (layers) that lack these logits: refuse, or cost nothing

    scope: ClassVar[Scope] = "pair"
    divides_by: ClassVar[Divisor] = "own"

    def __post_init__(self) -> None:
        wrong = [value for value in self.weights or () if not (math.isfinite(value) and value >= 0)]
        if wrong:
            raise ConfigError(f"Attribute.weights of '{self.name}': expected numbers of at least 0, got {wrong[0]}")

    def __call__(self, preds: Predictions, targets: Targets, pairs: Assignment) -> Float[Tensor, " P"]:
        """Contribution of each pair.

        Raises:
            ShapeError: logits or labels are missing, or do not fit each other or the weights.
        """
        dense = (preds.attribute_logits or {}).get(self.name)
        if dense is None and self.missing == "skip":
            return torch.zeros_like(pairs.weight)
        if dense is None:
            held = ", ".join(preds.attribute_logits or {}) or "none"
            raise ShapeError(
                f"Predictions.attribute_logits: expected '{self.name}' for role '{preds.role}', got {held}; "
                'a layer without that head asks for Attribute(missing="skip")'
            )
        if self.weights is not None and len(self.weights) != dense.shape[-1]:
            raise ShapeError(
                f"Attribute.weights of '{self.name}': expected {dense.shape[-1]} numbers, one for each class, "
                f"got {len(self.weights)}"
            )
        labels = self._labels(targets, dense.shape[-1])[pairs.image, pairs.target]
        logits = rows_at(dense, pairs)
        factors = logits.new_ones(dense.shape[-1]) if self.weights is None else constant(self.weights, logits)
        values, weight, known = (_exclusive if labels.ndim == 1 else _several)(logits, labels, factors)
        known = known & pairs.valid
        weight = torch.where(known, weight * pairs.weight.to(weight.dtype), torch.zeros_like(weight))
        divisor = sum_over_ranks(weight.sum())
        divisor = divisor.clamp(min=1) if preds.grid is not None else torch.where(divisor > 0, divisor, 1.0)
        return torch.where(known, values, torch.zeros_like(values)) * (weight / divisor)

    def _labels(self, targets: Targets, classes: int) -> Tensor:
        labels = (targets.attributes or {}).get(self.name)
        if labels is None:
            held = ", ".join(targets.attributes or {}) or "none"
            raise ShapeError(f"Targets.attributes: expected labels of '{self.name}', got {held}")
        if labels.ndim == 2 and labels.dtype == torch.int64:
            return labels
        if labels.ndim == 3 and labels.is_floating_point() and labels.shape[-1] == classes:
            return labels
        raise ShapeError(
            f"Targets.attributes['{self.name}']: expected int64 (B, M), or floating point (B, M, {classes}) for "
            f"several labels per object, got {labels.dtype} {tuple(labels.shape)}"
        )


def _exclusive(logits: Tensor, labels: Tensor, factors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Cost, weight and whether it is known, of every pair's label."""
    known, chosen = labels != UNKNOWN, labels.clamp(min=0)
    logits = torch.where(known[:, None], logits, torch.zeros_like(logits))  # what nobody labelled may be infinite
    return cross_entropy(logits, chosen), factors[chosen], known


def _several(logits: Tensor, labels: Tensor, factors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same for several labels: the cost is the weighted mean over the known ones, the weight 1."""
    known = labels != UNKNOWN
    share = torch.where(known, factors, torch.zeros_like(factors))
    logits = torch.where(known, logits, torch.zeros_like(logits))
    costs = bce_with_logits(logits, labels.to(logits.dtype).clamp(min=0))
    total = share.sum(dim=-1)
    mean = (costs * share).sum(dim=-1) / torch.where(total > 0, total, torch.ones_like(total))
    return mean, torch.ones_like(mean), total > 0
