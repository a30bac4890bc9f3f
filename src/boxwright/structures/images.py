# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Labels and outputs of whole images."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from boxwright.errors import ShapeError
from boxwright.structures.fields import expect_rank


@dataclass(frozen=True, slots=True)
class ImageTargets:
    """The labels of whole images: one class each, or one number in [0, 1] for every class; -1 is not labelled."""

    labels: Int64[Tensor, " B"] | Float[Tensor, "B C"]
    weights: Float[Tensor, " B"] | None = None  # factor on an image's contribution; divisors do not change

    def __post_init__(self) -> None:
        multi_label = self.labels.ndim == 2 and self.labels.is_floating_point()
        if not multi_label and (self.labels.ndim != 1 or self.labels.dtype != torch.int64):
            raise ShapeError(
                "ImageTargets.labels: expected int64 (B,), or floating point (B, C) for several labels per image, "
                f"got {self.labels.dtype} {tuple(self.labels.shape)}"
            )
        if self.weights is not None and self.weights.shape != self.labels.shape[:1]:
            raise ShapeError(
                f"ImageTargets.weights: expected {tuple(self.labels.shape[:1])}, got {tuple(self.weights.shape)}"
            )

    def to(self, device: torch.device | str) -> "ImageTargets":
        """The same targets on another device."""
        weights = None if self.weights is None else self.weights.to(device, non_blocking=True)
        return ImageTargets(self.labels.to(device, non_blocking=True), weights)


@dataclass(frozen=True, slots=True)
class ImageOutputs:
    """What a classifier returns for a batch of images."""

    logits: Float[Tensor, "B C"]  # raw class scores
    role: str = "main"

    def __post_init__(self) -> None:
        expect_rank("ImageOutputs.logits", self.logits, 2, "(B, C)")
