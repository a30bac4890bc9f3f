# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Who pays each contribution of a loss: an object, the background of an image, or an image as a whole.

Nothing is left over: the shares of an item sum to its value.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from boxwright.errors import ShapeError
from boxwright.losses.terms.base import divides_by
from boxwright.structures import Assignment, LossItem, Predictions, Targets


@dataclass(frozen=True, slots=True)
class Shares:
    """One item of a loss, sorted by who pays; float64, in the item's normalised units (before gain and scale)."""

    item: LossItem
    scope: str  # "pair", "candidate" or "image"
    pairs: Assignment
    of_pairs: Float[Tensor, " P"]  # what each pair pays; 0 where it is not valid
    of_objects: Float[Tensor, "B M"]
    of_candidates: Float[Tensor, "B A"] | None  # what unmatched candidates pay; None for terms of pairs and images
    of_background: Float[Tensor, " B"]
    of_images: Float[Tensor, " B"]  # what belongs to an image as a whole
    divisor: float = 1.0  # the assignment's normalizer, where the term divides by it

    @property
    def total(self) -> Float[Tensor, ""]:
        """All shares together: the item's value."""
        return self.of_objects.sum() + self.of_background.sum() + self.of_images.sum()


def shares_of(item: LossItem, term: Any, preds: Predictions, targets: Targets, pairs: Assignment) -> Shares:
    """The item's contributions by who pays them.

    A candidate that an object holds is paid for by that object; of several claims by the one that the term says counts
    (`term.target`), else the last. Other candidates are background.

    Raises:
        ShapeError: contributions of a shape that belongs to nothing.
    """
    values = item.contributions.detach().double()
    scope = _scope(values, term, preds, pairs)
    if scope == "image":
        per_image = values.flatten(1).sum(dim=1) if values.ndim > 1 else values
        return _with(item, term, scope, pairs, targets, of_images=per_image)
    if scope == "pair":
        # What an unused slot holds is 0 by contract; it is kept so that a term that breaks it is seen in the sum.
        objects = _by_object(values, pairs, targets)
        return _with(item, term, scope, pairs, targets, of_pairs=values, of_objects=objects)
    counting = _counting(term, preds, targets, pairs)
    owner = owners(counting, preds)
    matched = owner >= 0
    place = owner.clamp(min=0)
    of_pairs = torch.zeros(len(pairs.image), dtype=torch.float64, device=values.device)
    if len(of_pairs):
        of_pairs.index_add_(0, place.flatten(), torch.where(matched, values, 0.0).flatten())
    return _with(
        item,
        term,
        scope,
        pairs,
        targets,
        of_pairs=of_pairs,
        of_objects=_by_object(of_pairs, pairs, targets),
        of_candidates=torch.where(matched, torch.zeros_like(values), values),
        of_background=torch.where(matched, torch.zeros_like(values), values).sum(dim=1),
    )


def owners(pairs: Assignment, preds: Predictions) -> Int64[Tensor, "B A"]:
    """The pair that holds each candidate, the last of several; -1 for unmatched ones."""
    batch, anchors = preds.logits.shape[:2]
    place = torch.where(pairs.valid, pairs.image * anchors + pairs.anchor, batch * anchors)
    number = torch.arange(len(place), device=place.device)
    found = torch.full((batch * anchors + 1,), -1, device=place.device)
    return found.scatter_reduce(0, place, number, "amax")[:-1].view(batch, anchors)


def _counting(term: Any, preds: Predictions, targets: Targets, pairs: Assignment) -> Assignment:
    """The pairs of which only those are valid that decide a candidate's target."""
    decide: Callable[..., tuple[Tensor, Assignment]] | None = getattr(term, "target", None)
    return pairs if decide is None or not callable(decide) else decide(preds, targets, pairs)[1]


def _scope(values: Tensor, term: Any, preds: Predictions, pairs: Assignment) -> str:
    named = getattr(term, "scope", None)
    if named in ("pair", "candidate", "image"):
        return str(named)
    shape = tuple(values.shape)
    if shape == tuple(preds.logits.shape[:2]):
        return "candidate"
    if shape == tuple(pairs.image.shape):
        return "pair"
    if shape[:1] == tuple(preds.logits.shape[:1]):
        return "image"
    raise ShapeError(
        f"a term's contributions: expected (P,) = {tuple(pairs.image.shape)}, (B, A) = {tuple(preds.logits.shape[:2])} "
        f"or one entry per image, got {shape}"
    )


def _by_object(values: Tensor, pairs: Assignment, targets: Targets) -> Tensor:
    batch, slots = targets.labels.shape
    found = torch.zeros(batch * max(slots, 1), dtype=torch.float64, device=values.device)
    if len(values):
        found.index_add_(0, pairs.image * slots + pairs.target, values)
    return found[: batch * slots].view(batch, slots)


def _with(item: LossItem, term: Any, scope: str, pairs: Assignment, targets: Targets, **parts: Tensor) -> Shares:
    batch, slots = targets.labels.shape
    none = torch.zeros((), dtype=torch.float64, device=item.contributions.device)
    start = Shares(
        item=item,
        scope=scope,
        pairs=pairs,
        of_pairs=none.expand(len(pairs.image)),
        of_objects=none.expand(batch, slots),
        of_candidates=None,
        of_background=none.expand(batch),
        of_images=none.expand(batch),
        divisor=1.0 if divides_by(term) == "own" else float(pairs.normalizer),
    )
    return replace(start, **parts)  # type: ignore[arg-type]
