# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The semantic helper term of newer segmentation models: which class is at each pixel."""

from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from boxwright.config import component
from boxwright.errors import ShapeError
from boxwright.losses.functional import bce_with_logits
from boxwright.losses.terms.base import Divisor, Scope
from boxwright.losses.terms.mask import resize_nearest
from boxwright.ops.collective import sum_over_ranks
from boxwright.structures import Assignment, Predictions, Targets, at_least_float32

SMOOTH = 1.0  # pixels; keeps the Dice ratio of a class that is nowhere defined


@component
class SemanticMap:
    """Half binary cross-entropy, half Dice, of a dense class map that is supervised where any instance is.

    A pixel's target is one at `Targets.class_map` where an instance covers it, and zero elsewhere. The term is silent
    (zero) while the batch has no pairs.

    Source: Dice loss, Milletari et al. 2016, arXiv:1606.04797; spec/losses F.5.
    """

    kind: Literal["semantic_map"] = "semantic_map"

    scope: ClassVar[Scope] = "image"
    divides_by: ClassVar[Divisor] = "own"

    def __call__(self, preds: Predictions, targets: Targets, pairs: Assignment) -> Float[Tensor, " B"]:
        """Contribution of each image.

        Raises:
            ShapeError: predictions without semantic logits, targets without class map, or maps that do not fit.
        """
        z, covered, label = self.maps(preds, targets)
        wanted = covered[:, None] & (label[:, None] == torch.arange(z.shape[1], device=z.device)[:, None, None])
        p, y = torch.sigmoid(z), wanted.to(z.dtype)
        entropy = bce_with_logits(z, y).mean(dim=(1, 2, 3))
        dice = 1 - (2 * (p * y).sum(dim=(2, 3)) + SMOOTH) / (p.sum(dim=(2, 3)) + y.sum(dim=(2, 3)) + SMOOTH)
        return self.mean_over_images(0.5 * entropy + 0.5 * dice.mean(dim=1), pairs)

    def maps(
        self, preds: Predictions, targets: Targets
    ) -> tuple[Float[Tensor, "B C h w"], Bool[Tensor, "B h w"], Int64[Tensor, "B h w"]]:
        """Logits, whether an instance covers each pixel, and the pixel's class.

        Raises:
            ShapeError: predictions without semantic logits, targets without class map, or maps that do not fit.
        """
        if preds.semantic_logits is None:
            raise ShapeError(f"Predictions.semantic_logits: expected (B, C, h, w), got None for role '{preds.role}'")
        z = at_least_float32(preds.semantic_logits)
        return z, *_labelled(targets, (z.shape[-2], z.shape[-1]))

    def mean_over_images(self, values: Float[Tensor, " B"], pairs: Assignment) -> Float[Tensor, " B"]:
        """Shares of the mean over the images of all ranks; zeros while no rank has a pair."""
        images, positives = sum_over_ranks(
            torch.stack((torch.full_like(values[:1], len(values)).sum(), pairs.valid.sum().to(values.dtype)))
        ).unbind()
        return torch.where(positives > 0, values / images, torch.zeros_like(values))


def _labelled(targets: Targets, size: tuple[int, int]) -> tuple[Bool[Tensor, "B h w"], Int64[Tensor, "B h w"]]:
    """Whether an instance covers each pixel, and the pixel's class, at the size of the logits."""
    if targets.class_map is None:
        raise ShapeError("Targets.class_map: expected (B, h, w), got None")
    if targets.masks is not None:
        covered = (targets.masks & targets.valid[..., None, None]).any(dim=1)
    elif targets.instance_map is not None:
        covered = targets.instance_map != 0
    else:
        raise ShapeError("Targets.instance_map: expected (B, h, w), or `masks` (B, M, h, w), got neither")
    if covered.shape != targets.class_map.shape:
        raise ShapeError(
            f"Targets.class_map: expected the size of the masks {tuple(covered.shape)}, "
            f"got {tuple(targets.class_map.shape)}"
        )
    covered, label = resize_nearest(covered, size), resize_nearest(targets.class_map, size)
    return covered, torch.where(covered, label, torch.zeros_like(label))
