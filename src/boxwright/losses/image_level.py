# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The criterion of whole images: one class for each, or several."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from boxwright.config import component
from boxwright.errors import ConfigError, ShapeError
from boxwright.losses.functional import bce_with_logits, cross_entropy
from boxwright.ops.collective import sum_over_ranks, world_size
from boxwright.ops.constants import constant
from boxwright.structures import ImageOutputs, ImageTargets, LossBreakdown, LossItem, at_least_float32


@component
class ImageCriterion:
    """Mean cross-entropy of images with one class; mean binary cross-entropy of every class for several per image.

    The labels decide: (B,) class indices, or (B, C) numbers. What is labelled -1 costs nothing and is not counted.

    Source: label smoothing, Szegedy et al. 2016, arXiv:1512.00567.
    """

    kind: Literal["image"] = "image"
    # Share of the target that is spread over all classes; with several labels, half of it goes to the other side.
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    # Factor of each class. One class: on the image, and the mean is the weighted mean. Several: on the class's entries.
    class_weights: tuple[float, ...] | None = None
    gain: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing < 1:
            raise ConfigError(f"ImageCriterion.smoothing: expected at least 0 and less than 1, got {self.smoothing}")
        if self.class_weights is not None and not all(weight >= 0 for weight in self.class_weights):
            raise ConfigError(f"ImageCriterion.class_weights: expected numbers >= 0, got {self.class_weights}")

    def __call__(self, outputs: ImageOutputs, targets: ImageTargets, progress: float = 0.0) -> LossBreakdown:
        """The loss of a step, with one item "<role>/cls" of one contribution per image.

        Args:
            outputs: half precision is computed in float32, float64 stays float64.
            targets: on the device of the outputs.
            progress: not read; every criterion takes it.

        Raises:
            ShapeError: outputs, labels and class weights do not belong together.
        """
        with torch.autocast(outputs.logits.device.type, enabled=False):
            logits = at_least_float32(outputs.logits)
            self._check(logits, targets)
            weights = None if self.class_weights is None else constant(self.class_weights, logits)
            form = self._one_class if targets.labels.ndim == 1 else self._several
            costs, counted = form(logits, targets.labels, weights)
            # A weighted count may be small, but only nothing at all is zero; then all costs are zero, too.
            total = sum_over_ranks(counted.sum())
            costs = costs / torch.where(total > 0, total, torch.ones_like(total))
            if targets.weights is not None:
                costs = costs * targets.weights.to(costs.dtype)
        return LossBreakdown((LossItem(f"{outputs.role}/cls", costs, self.gain),), {}, float(world_size()))

    def prepare(self, targets: ImageTargets, grid: object = None) -> ImageTargets:
        """The targets as they are: nothing about whole images has to be laid out."""
        return targets

    def state_dict(self) -> dict[str, list[float]]:
        """Nothing: it remembers nothing from step to step."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from what `state_dict` gave.

        Raises:
            ConfigError: the state is of another criterion.
        """
        if state:
            raise ConfigError(f"ImageCriterion: expected an empty state, got one with {', '.join(state)}")

    def _one_class(self, logits: Tensor, labels: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
        """Cost of each image, and what it counts in the mean."""
        known = labels >= 0
        label = torch.where(known, labels, torch.zeros_like(labels))
        counted = known.to(logits.dtype) if weights is None else torch.where(known, weights[label], 0.0)
        # An image that is not labelled must not reach a gradient, whatever its logits hold.
        safe = torch.where(known[:, None], logits, torch.zeros_like(logits))
        return cross_entropy(safe, label, self.smoothing) * counted, counted

    def _several(self, logits: Tensor, labels: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
        """Cost of each image's classes together, and what its labelled entries count in the mean."""
        known = labels >= 0
        safe = torch.where(known, logits, torch.zeros_like(logits))
        soft = labels.to(logits.dtype) * (1 - self.smoothing) + 0.5 * self.smoothing
        costs = torch.where(known, bce_with_logits(safe, soft), torch.zeros_like(safe))
        if weights is not None:
            costs = costs * weights
        return costs.sum(dim=1), known.to(logits.dtype).sum(dim=1)

    def _check(self, logits: Float[Tensor, "B C"], targets: ImageTargets) -> None:
        batch, classes = logits.shape
        expected = (batch,) if targets.labels.ndim == 1 else (batch, classes)
        if tuple(targets.labels.shape) != expected:
            raise ShapeError(
                f"ImageTargets.labels: expected {expected} as in the outputs, got {tuple(targets.labels.shape)}"
            )
        if self.class_weights is not None and len(self.class_weights) != classes:
            raise ShapeError(
                f"ImageCriterion.class_weights: expected {classes} numbers, one for each class of the outputs, "
                f"got {len(self.class_weights)}"
            )
