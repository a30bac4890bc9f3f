# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The objectness term: does a candidate hold an object, and how well does its box fit."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from boxwright.config import component
from boxwright.errors import ConfigError, ShapeError
from boxwright.kernels.softplus import SATURATED
from boxwright.losses.factors import candidate_factors
from boxwright.losses.functional import focal
from boxwright.losses.terms.anchor_box import overlap_in_cells
from boxwright.ops.collective import sum_over_ranks
from boxwright.ops.overlap import OverlapName
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
    scope: ClassVar[Literal["own"]] = "own"

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
        claims, winners = self._claims(preds, targets, pairs)
        if self.focal_gamma > 0:
            values = focal(logits, claims.plane(logits), self.focal_gamma, self.focal_alpha, self.pos_weight)
        elif self.pos_weight != 1:
            values = _cross_entropy(logits, claims.plane(logits), self.pos_weight)
        else:
            values = _PlainCrossEntropy.apply(logits, claims.place, claims.value)  # type: ignore[no-untyped-call]
        if targets.weights is not None or targets.ignore is not None:
            factor = candidate_factors(preds, targets, winners).to(values.dtype)
            # Not a product: what is ignored may be infinite.
            values = torch.where(factor == 0, torch.zeros_like(values), values * factor)
        sizes = preds.cells.level_sizes
        images = sum_over_ranks(values.new_full((), float(len(values))))
        balance = (1.0,) * len(sizes) if isinstance(self.balance, AutoBalance) else self._weights(preds.cells)
        shares = [weight / size for weight, size in zip(balance, sizes, strict=True)]
        if len(sizes) == 1:
            return values * (shares[0] / images)
        return (
            values
            * torch.cat([values.new_full((size,), share) for size, share in zip(sizes, shares, strict=True)])
            / images
        )

    def target(self, preds: Predictions, targets: Targets, pairs: Assignment) -> tuple[Tensor, Assignment]:
        """(B, A) target of every candidate, and the pairs of which only those that decide one are valid."""
        claims, winners = self._claims(preds, targets, pairs)
        return claims.plane(preds.objectness_plane), winners

    @torch.no_grad()
    def _claims(self, preds: Predictions, targets: Targets, pairs: Assignment) -> tuple["_Claims", Assignment]:
        """What every pair claims, and the pairs of which only those that decide a target are valid."""
        batch, anchors = preds.logits.shape[:2]
        fit = overlap_in_cells(preds, targets, pairs, self.overlap).detach()
        # Pairs that are not valid write to a place behind the last candidate.
        place = torch.where(pairs.valid, pairs.image * anchors + pairs.anchor, batch * anchors)
        number = torch.arange(len(place), device=place.device)
        last = torch.full((batch * anchors + 1,), -1, device=place.device)
        if self.duplicates == "max":
            best = fit.new_full((len(last),), -torch.inf).scatter_reduce_(0, place, fit, "amax")
            number = torch.where(fit == best[place], number, -1)
        last.scatter_reduce_(0, place, number, "amax")
        won = pairs.valid & (last[place] == torch.arange(len(place), device=place.device))
        value = (1 - self.gr) + self.gr * fit.clamp(min=0)
        # Not a number has to reach the loss.
        counts = won | (value != value)
        claims = _Claims(place.masked_fill(~counts, 0), torch.where(counts, value, torch.zeros_like(value)))
        return claims, replace(pairs, valid=won, all_valid=False)

    def start(self, levels: Sequence[Grid]) -> list[float] | None:
        """What the criterion remembers before the first step: the balance; None when it does not adapt.

        Raises:
            ShapeError: no level has the reference stride.
        """
        if not isinstance(self.balance, AutoBalance):
            return None
        strides = [stride for grid in levels for stride in grid.level_strides]
        if self.balance.reference_stride not in strides:
            raise ShapeError(
                f"Objectness.balance.reference_stride: expected one of the strides {strides}, "
                f"got {self.balance.reference_stride}"
            )
        start = published_balance(len(strides)) if self.balance.start == "published" else self.balance.start
        return list(_fitting(start, 0, len(strides)))

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


class _Claims(NamedTuple):
    """Targets by pair: one winner a place holds the target, all others hold 0 and stand anywhere."""

    place: Tensor  # (P,) image * A + anchor
    value: Tensor  # (P,)

    def plane(self, logits: Tensor) -> Tensor:
        """(B, A) target of every candidate."""
        flat = self.value.new_zeros(logits.numel()).index_add_(0, self.place, self.value)
        return flat.view(logits.shape)


def _cross_entropy(logits: Tensor, wanted: Tensor, pos_weight: float) -> Tensor:
    """BCE without the product of 0 and an infinite softplus: softplus(-z) = softplus(z) - z."""
    values = functional.softplus(logits, threshold=SATURATED)
    values = values * (1 + (pos_weight - 1) * wanted)
    return values - torch.where(wanted != 0, pos_weight * wanted * logits, torch.zeros_like(logits))


class _PlainCrossEntropy(torch.autograd.Function):
    """BCE with targets that are 0 but at a few places: softplus(z), less target * z there; sigmoid(z) - target."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, place: Tensor, target: Tensor) -> Tensor:
        ctx.save_for_backward(logits, place, target)
        values = functional.softplus(logits, threshold=SATURATED)
        there = logits.flatten().index_select(0, place)
        # No product with a target of 0, where the logit may be infinite.
        hit = torch.where(target != 0, target * there, 0.0).to(values.dtype)
        values.view(-1).index_add_(0, place, hit, alpha=-1)
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        logits, place, target = ctx.saved_tensors
        out = torch.sigmoid(logits).mul_(gradient)
        correction = target * gradient.flatten().index_select(0, place)
        out.view(-1).index_add_(0, place, correction.to(out.dtype), alpha=-1)
        return out, None, None
