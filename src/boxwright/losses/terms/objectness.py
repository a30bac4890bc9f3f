# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The objectness term: does a candidate hold an object, and how well does its box fit."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from boxwright.config import component
from boxwright.errors import ConfigError, ShapeError
from boxwright.losses.factors import candidate_factors
from boxwright.losses.functional import bce_with_logits, focal
from boxwright.losses.terms.anchor_box import overlap_in_cells
from boxwright.losses.terms.base import Divisor, LevelBalance, Scope
from boxwright.ops.collective import sum_over_ranks
from boxwright.ops.overlap import OverlapName
from boxwright.ops.scores import SATURATED
from boxwright.structures import Assignment, Grid, Predictions, Targets

THREE_LEVELS = (4.0, 1.0, 0.4)
DEEP = (4.0, 1.0, 0.25, 0.06, 0.02)
MOMENTUM = 0.9999  # of the balance that adapts


def published_balance(levels: int) -> tuple[float, ...]:
    """Weight of each level's objectness, finest first, in a pyramid of 1 to 5 levels.

    >>> published_balance(3), published_balance(4)
    ((4.0, 1.0, 0.4), (4.0, 1.0, 0.25, 0.06))

    Raises:
        ConfigError: there are more levels than published weights.
    """
    if not 1 <= levels <= len(DEEP):
        raise ConfigError(
            f"Objectness.balance: 'published' knows 1 to {len(DEEP)} levels, got {levels}; list the weights"
        )
    return THREE_LEVELS if levels == 3 else DEEP[:levels]


@component
class AutoBalance:
    """The balance follows the loss: each level's weight moves towards 1 / (its loss), the reference level keeps 1.

    It is the one thing that a criterion remembers from step to step (`Criterion.state_dict`).

    Source: spec/losses E.1, as published for YOLOv5.
    """

    kind: Literal["auto"] = "auto"
    start: tuple[float, ...] | Literal["published"] = "published"
    reference_stride: int = 16  # px; the level whose weight stays 1
    in_eval: bool = False  # also adapt where no gradient is recorded, as the published code does

    def start_for(self, levels: Sequence[Grid]) -> list[float]:
        """Weights before the first step, finest level first.

        Raises:
            ShapeError: no level has the reference stride, or there are fewer weights than levels.
        """
        strides = [stride for grid in levels for stride in grid.level_strides]
        if self.reference_stride not in strides:
            raise ShapeError(
                f"Objectness.balance.reference_stride: expected one of the strides {strides}, "
                f"got {self.reference_stride}"
            )
        start = published_balance(len(strides)) if self.start == "published" else self.start
        return list(_fitting(start, 0, len(strides)))

    def moved(self, weights: Float[Tensor, " L"], losses: Float[Tensor, " L"], levels: Sequence[Grid]) -> Tensor:
        """Weights (L,) for the next step, given each level's loss in this one before its weight."""
        # A level without loss says nothing about its weight.
        towards = torch.where(losses > 0, weights * MOMENTUM + (1 - MOMENTUM) / losses, weights)
        strides = [stride for grid in levels for stride in grid.level_strides]
        return towards / towards[strides.index(self.reference_stride)]

    def moves(self, training: bool) -> bool:
        """Whether a step moves the weights; `training`: it records gradients."""
        return training or self.in_eval


Balance = Literal["published"] | tuple[float, ...] | AutoBalance


@component
class Objectness:
    """Binary cross-entropy of every candidate's objectness with the fit of its box, 0 where it is not matched.

    The target is (1 - gr) + gr * max(0, overlap), a constant. Several pairs may claim one candidate: then the largest
    overlap counts, or the last pair in the assigner's order (compatibility); the claim that counts also decides the
    object's weight. The mean over a level's candidates of all images and ranks enters with the level's balance.

    Source: spec/losses E.1 and C.1; focal: Lin et al. 2017, arXiv:1708.02002.
    """

    kind: Literal["objectness"] = "objectness"
    balance: Balance = "published"  # weight of each level, finest first
    gr: Annotated[float, Field(ge=0, le=1)] = 1.0  # share of the overlap in the target
    duplicates: Literal["max", "last"] = "max"
    overlap: OverlapName = "ciou"
    pos_weight: float = 1.0
    focal_gamma: Annotated[float, Field(ge=0)] = 0.0  # 0: no focal factor
    focal_alpha: float = 0.25
    # It knows which claim won, so it applies weights and ignore regions itself.
    scope: ClassVar[Scope] = "own"
    divides_by: ClassVar[Divisor] = "own"

    def __post_init__(self) -> None:
        if not 0 <= self.gr <= 1:
            raise ConfigError(f"Objectness.gr: expected 0 to 1, got {self.gr}")
        if not (self.focal_gamma == 0 or self.focal_gamma >= 1):
            raise ConfigError(
                "Objectness.focal_gamma: expected 0 (no focal factor) or at least 1 (below, the slope has no bound), "
                f"got {self.focal_gamma}"
            )

    def __call__(self, preds: Predictions, targets: Targets, pairs: Assignment) -> Float[Tensor, "B A"]:
        """Contribution of each candidate; with `AutoBalance` all levels count alike, the criterion weighs them.

        Raises:
            ShapeError: the predictions carry no objectness, or there are more levels than weights.
        """
        logits = preds.objectness_plane
        wanted, winners = self.target(preds, targets, pairs)
        factor = self.factors(preds, targets, winners)
        if factor is not None:
            logits = logits.masked_fill(factor == 0, 0.0)  # what is ignored may hold anything
        if self.focal_gamma > 0:
            values = focal(logits, wanted, self.focal_gamma, self.focal_alpha, self.pos_weight)
        else:
            values = bce_with_logits(logits, wanted, self.pos_weight)
            # Background costs softplus(z), also where z is infinite: no product of a target of 0 and softplus(-z).
            values = torch.where(wanted == 0, functional.softplus(logits, threshold=SATURATED), values)
        return self.balanced(values if factor is None else values * factor.to(values.dtype), preds.cells)

    def target(
        self, preds: Predictions, targets: Targets, pairs: Assignment
    ) -> tuple[Float[Tensor, "B A"], Assignment]:
        """Target of every candidate, a constant, and the pairs of which only those that decide one are valid."""
        fit = overlap_in_cells(preds, targets, pairs, self.overlap).detach()
        won = self._won(pairs, fit)
        value = (1 - self.gr) + self.gr * fit.clamp(min=0)
        value = torch.where(won, value, torch.zeros_like(value))
        plane = torch.zeros_like(preds.objectness_plane, requires_grad=False)
        plane = plane.index_put((pairs.image, pairs.anchor), value.to(plane.dtype), accumulate=True)
        return plane, replace(pairs, valid=won, all_valid=False)

    def _won(self, pairs: Assignment, fit: Float[Tensor, " P"]) -> Bool[Tensor, " P"]:
        """Whether a pair decides its candidate: it fits best there ("max"), or it is the last, also of equals."""
        number = torch.arange(len(fit), device=fit.device)
        rivals = (pairs.image[:, None] == pairs.image) & (pairs.anchor[:, None] == pairs.anchor) & pairs.valid
        beaten = number > number[:, None]
        if self.duplicates == "max":
            beaten = (fit > fit[:, None]) | ((fit == fit[:, None]) & beaten)
        return pairs.valid & ~(rivals & beaten).any(dim=1)

    def factors(self, preds: Predictions, targets: Targets, winners: Assignment) -> Float[Tensor, "B A"] | None:
        """Weight of each candidate by its object and ignore regions; None where no label has any."""
        if targets.weights is None and targets.ignore is None:
            return None
        return candidate_factors(preds, targets, winners)

    def balanced(self, values: Float[Tensor, "B A"], grid: Grid) -> Float[Tensor, "B A"]:
        """Costs of candidates as their shares of the mean over a level, times the level's weight."""
        sizes = grid.level_sizes
        images = sum_over_ranks(values.new_full((), float(len(values))))
        balance = (1.0,) * len(sizes) if isinstance(self.balance, AutoBalance) else self._weights(grid)
        shares = [weight / size for weight, size in zip(balance, sizes, strict=True)]
        if len(sizes) == 1:
            return values * (shares[0] / images)
        by_candidate = [values.new_full((size,), share) for size, share in zip(sizes, shares, strict=True)]
        return values * torch.cat(by_candidate) / images

    @property
    def remembers(self) -> LevelBalance | None:
        """The balance, where it follows the loss."""
        return self.balance if isinstance(self.balance, AutoBalance) else None

    def _weights(self, grid: Grid) -> tuple[float, ...]:
        assert not isinstance(self.balance, AutoBalance)
        levels = grid.total_levels or len(grid.shapes)
        if self.balance != "published":
            return _fitting(self.balance, grid.first_level, len(grid.shapes))
        if grid.total_levels is None and grid.first_level > 0:
            raise ShapeError(
                "Grid.total_levels: expected the number of levels of the whole pyramid, which decides the published "
                f"balance, got None for the grid of level {grid.first_level}"
            )
        return published_balance(levels)[grid.first_level : grid.first_level + len(grid.shapes)]


def _fitting(balance: tuple[float, ...], first: int, levels: int) -> tuple[float, ...]:
    if first + levels > len(balance):
        raise ShapeError(
            f"Objectness.balance: expected a weight for each of {first + levels} levels, got {len(balance)}"
        )
    return balance[first : first + levels]
