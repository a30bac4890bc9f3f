# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Factors on contributions that labels decide: weights of objects, and ignore regions. One place for every term.

Weights of objects are 0 or more; an object with weight 0 costs nothing, nor do the candidates that it holds. Here is
also what score terms divide by when a batch has no positive.
"""

from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from boxwright.errors import ShapeError
from boxwright.ops.collective import sum_over_ranks
from boxwright.structures import Assignment, Predictions, Targets

EmptyNorm = Literal["sum", "anchors"]


def with_factors(
    contributions: Float[Tensor, "*n"], term: Any, preds: Predictions, targets: Targets, pairs: Assignment
) -> Float[Tensor, "*n"]:
    """Contributions times the weight of the object they belong to; none from background inside an ignore region.

    A term says what its contributions belong to by its class variable `scope`: "pair" (P,), "candidate" (B, A),
    "image", or "own" when it applies factors itself. Without it the shape decides. Divisors do not change.

    Raises:
        ShapeError: contributions of a shape that belongs to nothing.
    """
    if targets.weights is None and targets.ignore is None:
        return contributions
    scope = getattr(term, "scope", None) or _scope_of(contributions, preds, pairs)
    if scope in ("own", "image"):
        return contributions
    if scope == "pair":
        return contributions if targets.weights is None else _times(contributions, _of_pairs(targets.weights, pairs))
    return _times(contributions, candidate_factors(preds, targets, pairs))


def candidate_factors(preds: Predictions, targets: Targets, pairs: Assignment) -> Float[Tensor, "B A"]:
    """Factor of every candidate: its object's weight where matched, else 0 inside an ignore region and 1 elsewhere.

    A candidate that several objects hold has the largest of their weights.
    """
    batch, anchors = preds.logits.shape[:2]
    background = torch.ones(batch, anchors, dtype=pairs.weight.dtype, device=preds.logits.device)
    if targets.ignore is not None:
        background = background.masked_fill(in_regions(preds, targets.ignore), 0.0)
    # Pairs that are not valid write to a place behind the last candidate.
    place = torch.where(pairs.valid, pairs.image * anchors + pairs.anchor, batch * anchors)
    weight = torch.ones_like(pairs.weight) if targets.weights is None else _of_pairs(targets.weights, pairs)
    matched = background.new_full((batch * anchors + 1,), -1.0).scatter_reduce(
        0, place, weight.to(background.dtype), "amax"
    )
    matched = matched[:-1].view(batch, anchors)
    return torch.where(matched < 0, background, matched)


def _times(contributions: Tensor, factor: Tensor) -> Tensor:
    # Not only a product: what is ignored may be infinite.
    return torch.where(factor == 0, torch.zeros_like(contributions), contributions * factor.to(contributions.dtype))


def _of_pairs(weights: Tensor, pairs: Assignment) -> Tensor:
    of = weights[pairs.image, pairs.target].to(pairs.weight.dtype)
    return torch.where(pairs.valid, of, torch.ones_like(of))


def divisor(empty_norm: EmptyNorm, preds: Predictions, pairs: Assignment) -> Float[Tensor, ""]:
    """The normalizer; where no pair weighs anything, with `empty_norm` "anchors", the candidates of all ranks."""
    if empty_norm == "sum":
        return pairs.normalizer
    batch, anchors = preds.logits.shape[:2]
    counts = torch.stack((pairs.weight.sum(), pairs.weight.new_full((), float(batch * anchors))))
    weight, candidates = sum_over_ranks(counts).unbind()
    return torch.where(weight == 0, candidates, pairs.normalizer)


def in_regions(preds: Predictions, regions: Float[Tensor, "B I 4"]) -> Bool[Tensor, "B A"]:
    """Whether a cell's centre lies in a region; for queries, more than half of the predicted box in a single one."""
    inside = torch.zeros(preds.logits.shape[:2], dtype=torch.bool, device=preds.logits.device)
    boxes = None if preds.grid is not None else preds.boxes
    for region in regions.unbind(dim=1):  # one at a time: nothing of size (images, regions, candidates)
        x1, y1, x2, y2 = region[:, None].unbind(dim=-1)
        if boxes is None:
            x, y = preds.cells.points.unbind(dim=-1)
            inside |= (x > x1) & (x < x2) & (y > y1) & (y < y2)
            continue
        wide = torch.minimum(boxes[..., 2], x2) - torch.maximum(boxes[..., 0], x1)
        high = torch.minimum(boxes[..., 3], y2) - torch.maximum(boxes[..., 1], y1)
        area = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
        inside |= wide.clamp(min=0) * high.clamp(min=0) > 0.5 * area
    return inside


def _scope_of(contributions: Tensor, preds: Predictions, pairs: Assignment) -> str:
    if tuple(contributions.shape) == tuple(preds.logits.shape[:2]):
        return "candidate"
    if tuple(contributions.shape) == tuple(pairs.weight.shape):
        return "pair"
    raise ShapeError(
        f"a term's contributions: expected (P,) = {tuple(pairs.weight.shape)} or (B, A) = "
        f"{tuple(preds.logits.shape[:2])}, got {tuple(contributions.shape)}"
    )
