# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The semantic helper term of newer segmentation models: which class is at each pixel."""

from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from boxwright.config import component
from boxwright.errors import ShapeError
from boxwright.kernels.softplus import SATURATED
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

    scope: ClassVar[Literal["image"]] = "image"

    def __call__(self, preds: Predictions, targets: Targets, pairs: Assignment) -> Float[Tensor, " B"]:
        """Contribution of each image.

        Raises:
            ShapeError: predictions without semantic logits, targets without class map, or maps that do not fit.
        """
        if preds.semantic_logits is None:
            raise ShapeError(f"Predictions.semantic_logits: expected (B, C, h, w), got None for role '{preds.role}'")
        z = at_least_float32(preds.semantic_logits)
        covered, label = _labelled(targets, (z.shape[-2], z.shape[-1]))
        # Only the logit of a pixel's own class knows a target: no tensor of one-hot targets.
        at_label = z.gather(1, label[:, None])[:, 0]
        own = torch.where(covered, at_label, torch.zeros_like(at_label))
        entropy = functional.softplus(z, threshold=SATURATED).mean(dim=(1, 2, 3)) - own.mean(dim=(1, 2)) / z.shape[1]
        p, here = torch.sigmoid(z), covered.to(z.dtype)
        place = label.flatten(1)
        both = torch.sigmoid(at_label) * here
        inter, truth = (z.new_zeros(z.shape[:2]).scatter_add(1, place, of.flatten(1)) for of in (both, here))
        dice = 1 - (2 * inter + SMOOTH) / (p.sum(dim=(2, 3)) + truth + SMOOTH)
        images, positives = sum_over_ranks(
            torch.stack((torch.full_like(entropy[:1], len(z)).sum(), pairs.valid.sum().to(z.dtype)))
        ).unbind()
        value = (0.5 * entropy + 0.5 * dice.mean(dim=1)) / images
        return torch.where(positives > 0, value, torch.zeros_like(value))


def _labelled(targets: Targets, size: tuple[int, int]) -> tuple[Bool[Tensor, "B h w"], Tensor]:
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
