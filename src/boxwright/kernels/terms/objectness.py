# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The objectness term without a dense target where costs are linear in it."""

from dataclasses import replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from boxwright.kernels.terms.anchor_box import overlap_in_cells
from boxwright.losses.functional import focal
from boxwright.losses.terms.objectness import Objectness
from boxwright.ops.scores import SATURATED
from boxwright.structures import Assignment, Predictions, Targets


def objectness(term: Objectness, preds: Predictions, targets: Targets, pairs: Assignment) -> Float[Tensor, "B A"]:
    """Contribution of each candidate."""
    logits = preds.objectness_plane
    claims, winners = _claims(term, preds, targets, pairs)
    if term.focal_gamma > 0:
        values = focal(logits, claims.plane(logits), term.focal_gamma, term.focal_alpha, term.pos_weight)
    elif term.pos_weight != 1:
        values = _cross_entropy(logits, claims.plane(logits), term.pos_weight)
    else:
        values = _PlainCrossEntropy.apply(logits, claims.place, claims.value)  # type: ignore[no-untyped-call]
    factor = term.factors(preds, targets, winners)
    if factor is not None:
        factor = factor.to(values.dtype)
        # Not a product: what is ignored may be infinite.
        values = torch.where(factor == 0, torch.zeros_like(values), values * factor)
    return term.balanced(values, preds.cells)


class _Claims(NamedTuple):
    """Targets by pair: one winner a place holds the target, all others hold 0 and stand anywhere."""

    place: Tensor  # (P,) image * A + anchor
    value: Tensor  # (P,)

    def plane(self, logits: Tensor) -> Tensor:
        """(B, A) target of every candidate."""
        flat = self.value.new_zeros(logits.numel()).index_add_(0, self.place, self.value)
        return flat.view(logits.shape)


@torch.no_grad()
def _claims(term: Objectness, preds: Predictions, targets: Targets, pairs: Assignment) -> tuple[_Claims, Assignment]:
    """What every pair claims, and the pairs of which only those that decide a target are valid."""
    batch, anchors = preds.logits.shape[:2]
    fit = overlap_in_cells(preds, targets, pairs, term.overlap).detach()
    # Pairs that are not valid write to a place behind the last candidate.
    place = torch.where(pairs.valid, pairs.image * anchors + pairs.anchor, batch * anchors)
    number = torch.arange(len(place), device=place.device)
    last = torch.full((batch * anchors + 1,), -1, device=place.device)
    if term.duplicates == "max":
        best = fit.new_full((len(last),), -torch.inf).scatter_reduce_(0, place, fit, "amax")
        number = torch.where(fit == best[place], number, -1)
    last.scatter_reduce_(0, place, number, "amax")
    won = pairs.valid & (last[place] == torch.arange(len(place), device=place.device))
    value = (1 - term.gr) + term.gr * fit.clamp(min=0)
    # Not a number has to reach the loss.
    counts = won | (value != value)
    claims = _Claims(place.masked_fill(~counts, 0), torch.where(counts, value, torch.zeros_like(value)))
    return claims, replace(pairs, valid=won, all_valid=False)


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
