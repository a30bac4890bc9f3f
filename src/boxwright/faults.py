# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Where a loss stopped being finite, by role, term, image and object: what the trainer's trap and the inspector say."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int64
from torch import Tensor

from boxwright.structures import Assignment, ImageTargets, LossBreakdown, LossItem, Targets

MOST = 3  # places of a term that are told


@dataclass(frozen=True, slots=True)
class Place:
    """One contribution that is infinite or undefined. Images are places in the batch, objects slots."""

    value: float
    image: int | None = None
    object: int | None = None  # None: a candidate that no object holds, or a part of a whole image
    candidate: int | None = None
    about: str = ""  # of the object: its class and box


@dataclass(frozen=True, slots=True)
class Fault:
    """A term with contributions that are not finite."""

    role: str  # label of the prediction, "main", "decoder3"
    term: str  # "box"
    count: int  # contributions that are not finite
    of: int  # contributions
    images: tuple[int, ...]  # that hold one; empty where the term does not tell
    places: tuple[Place, ...]  # the first of them
    spread: bool = False  # a pair's weight spoilt the normalizer and so every contribution; places are of such pairs

    @property
    def name(self) -> str:
        """The item's name, "main/box"."""
        return f"{self.role}/{self.term}" if self.role else self.term

    def moved(self, images: int) -> "Fault":
        """The same among more images, of which so many come before."""
        places = (replace(p, image=None if p.image is None else p.image + images) for p in self.places)
        return replace(self, images=tuple(image + images for image in self.images), places=tuple(places))

    def words(self) -> str:
        """Term, count and places in a line."""
        told = "; ".join(map(_words, self.places)) or "no single place"
        start = f"{self.name}: {self.count} of {self.of} contributions are not finite"
        if self.spread:
            return f"{start}, as the sum of all pairs' weights is not; it comes from {told}"
        more = f"; and {self.count - len(self.places)} more" if self.places and self.count > len(self.places) else ""
        return f"{start}: {told}{more}"


def faults_of(
    breakdown: LossBreakdown, targets: Targets | ImageTargets | None = None, names: Sequence[str] = ()
) -> tuple[Fault, ...]:
    """Every term with contributions that are not finite, in the order of the loss. Syncs.

    Args:
        breakdown: the loss of a batch.
        targets: its labels, to say what the objects are.
        names: of the classes.
    """
    found = []
    for item in breakdown.items:
        bad = (~torch.isfinite(item.contributions.detach())).nonzero()
        if len(bad):
            found.append(_fault(item, bad, breakdown, targets, names))
    return tuple(found)


def _fault(
    item: LossItem,
    bad: Int64[Tensor, "N axes"],
    breakdown: LossBreakdown,
    targets: Targets | ImageTargets | None,
    names: Sequence[str],
) -> Fault:
    role, _, term = item.name.rpartition("/")
    values, pairs, count = item.contributions.detach(), breakdown.assignments.get(role), len(bad)
    spread = pairs is not None and not bool(torch.isfinite(pairs.normalizer))
    if pairs is not None and spread:  # every contribution is spoilt; those that spoilt them are told
        culprits = (pairs.valid & ~torch.isfinite(pairs.weight)).nonzero()
        spread = bool(len(culprits))
        if spread:
            bad, values = culprits, pairs.weight
    image, slot, candidate = _where(bad, values, pairs)
    places = []
    for row in range(min(MOST, len(bad))):
        value = float(values[tuple(bad[row].tolist())])
        where, whose, which = (
            None if of is None or int(of[row]) < 0 else int(of[row]) for of in (image, slot, candidate)
        )
        places.append(Place(value, where, whose, which, _about(targets, where, whose, names)))
    images = () if image is None else tuple(dict.fromkeys(image.tolist()))
    return Fault(role, term, count, item.contributions.numel(), images, tuple(places), spread)


def _where(
    bad: Tensor, contributions: Tensor, pairs: Assignment | None
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Image, object and candidate of the bad entries, -1 where there is none; None where the shape does not tell."""
    if bad.shape[1] > 1:
        image, candidate = bad[:, 0], bad[:, 1]
        return image, None if pairs is None else _holders(pairs, contributions.shape, image, candidate), candidate
    if pairs is None or bad.shape[1] == 0:
        return (bad[:, 0] if bad.shape[1] else None), None, None
    if contributions.shape != pairs.image.shape:
        return bad[:, 0], None, None
    rows = bad[:, 0]
    return pairs.image[rows], pairs.target[rows], pairs.anchor[rows]


def _holders(pairs: Assignment, shape: Sequence[int], image: Tensor, candidate: Tensor) -> Tensor:
    """The object that holds each candidate, the last of several; -1 for none."""
    anchors = int(shape[1])
    holder = torch.full((int(shape[0]) * anchors + 1,), -1, device=image.device)
    place = torch.where(pairs.valid, pairs.image * anchors + pairs.anchor, holder.numel() - 1)
    holder = holder.scatter_reduce(0, place, pairs.target, "amax")
    return holder[image * anchors + candidate]


def _about(targets: object, image: int | None, slot: int | None, names: Sequence[str]) -> str:
    if not isinstance(targets, Targets) or image is None or slot is None:
        return ""
    label = int(targets.labels[image, slot])
    name = names[label] if 0 <= label < len(names) else f"class {label}"
    box = ", ".join(f"{value:.1f}" for value in targets.boxes[image, slot].tolist())
    return f"{name} at ({box})"


def _words(place: Place) -> str:
    """One place: its value, image, object and candidate."""
    parts = [f"{place.value} in image {place.image}" if place.image is not None else f"{place.value}"]
    if place.object is not None:
        parts.append(f"object {place.object}" + (f" ({place.about})" if place.about else ""))
    elif place.candidate is not None:
        parts.append("no object")
    if place.candidate is not None:
        parts.append(f"candidate {place.candidate}")
    return ", ".join(parts)
