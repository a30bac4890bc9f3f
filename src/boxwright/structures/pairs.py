# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Pairs of candidates and objects, and what they cost."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from boxwright.structures.fields import at_least_float32


@dataclass(frozen=True, slots=True)
class Assignment:
    """Who learns from whom: P pairs of image[p], candidate anchor[p] and target slot target[p]."""

    image: Int64[Tensor, " P"]
    anchor: Int64[Tensor, " P"]
    target: Int64[Tensor, " P"]
    valid: Bool[Tensor, " P"]  # P counts slots known on the host; the others are left out of every sum
    weight: Float[Tensor, " P"]  # soft quality in [0, 1]; 0 where not valid
    normalizer: Float[Tensor, ""]  # > 0; what sums of weights are divided by, summed over ranks
    all_valid: bool = False  # the host knows that no slot is unused, so nobody has to look at `valid`

    @property
    def share(self) -> Float[Tensor, " P"]:
        """Weight of each pair divided by the normalizer."""
        return self.weight / self.normalizer


def rows_at(dense: Float[Tensor, "B A ..."], pairs: Assignment) -> Float[Tensor, "P ..."]:
    """dense[image, anchor] of every pair in at least float32, with gradient; zeros where a pair is not valid.

    An unused slot may point at any cell: its values must not reach a gradient (0 * inf is NaN).
    """
    rows = at_least_float32(dense[pairs.image, pairs.anchor])
    valid = pairs.valid.view(-1, *[1] * (rows.ndim - 1))
    return torch.where(valid, rows, torch.zeros_like(rows))


@dataclass(frozen=True, slots=True)
class LossItem:
    """One term of one role: contributions are weighted and normalised, their sum is the term's value before gain."""

    name: str  # "main/box"
    contributions: Float[Tensor, "..."]  # (P,) or (B, A), or (B,) for a term on whole images
    gain: float  # of the term, times the scale of its rule at this point of the training


@dataclass(frozen=True, slots=True)
class LossBreakdown:
    """The loss of a step, in parts that sum to the total."""

    items: tuple[LossItem, ...]
    assignments: Mapping[str, Assignment]  # by `Predictions.label`
    scale: float | Float[Tensor, ""]  # images in the batch over all ranks (or 1) times the number of ranks

    @property
    def components(self) -> dict[str, Float[Tensor, ""]]:
        """Gain-weighted value of every item without the scale, of this rank's images: ranks add up to the batch's."""
        return {item.name: item.contributions.sum() * item.gain for item in self.items}

    @property
    def total(self) -> Float[Tensor, ""]:
        """Scale * sum of gain-weighted items: what `backward` is called on; its mean over ranks is the batch's loss.

        The number of ranks in the scale undoes the mean that DDP takes of the gradients.
        """
        return self.scale * torch.stack(list(self.components.values())).sum()

    def scalars(self) -> dict[str, float]:
        """Components and total as floats, for logs. Syncs with the device once."""
        components = self.components
        values = torch.stack([*components.values(), self.total]).detach().tolist()
        return dict(zip([*components, "total"], values, strict=True))
