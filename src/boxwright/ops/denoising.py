# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Denoising queries: noised copies of the true objects that a decoder learns to undo, with pairs known beforehand."""

import math
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
from jaxtyping import Bool, Float, Int64
from pydantic import Field
from torch import Tensor

from boxwright.config import component
from boxwright.errors import ConfigError, ShapeError
from boxwright.ops.boxes import xyxy_to_cxcywh
from boxwright.ops.constants import constant
from boxwright.ops.objects import check_labels, with_objects
from boxwright.structures import Assignment, Targets, at_least_float32

EDGE = 1e-6  # share of the image; a noised box's numbers stay this far from 0 and 1, where a logit is infinite
LOGIT_LIMIT = math.log((1 - EDGE) / EDGE)


@dataclass(frozen=True, slots=True)
class Noise:
    """What is random about denoising queries: for every block of slots and every object that takes part."""

    flip: Float[Tensor, "blocks N"]  # uniform in [0, 1); the label changes where it is below half the label noise
    label: Int64[Tensor, "blocks N"]  # class to change to
    sign: Float[Tensor, "blocks N 4"]  # -1 or 1, of each side
    reach: Float[Tensor, "blocks N 4"]  # uniform in [0, 1), in half sides of the box; negatives add 1


@dataclass(frozen=True, slots=True)
class DenoisingQueries:
    """S queries in front of the Q matching queries of a decoder; S = 0 where a batch has no object."""

    labels: Int64[Tensor, "B S"]  # -1 in empty slots, whose embedding is zero
    box_logits: Float[Tensor, "B S 4"]  # of cx, cy, w, h in shares of the image; zeros in empty slots
    blocked: Bool[Tensor, "T T"]  # T = S + Q; whether query (row) may NOT attend to key (column)
    known: Assignment  # positive queries and the objects they were made from
    groups: int


@component
class Denoising:
    """Makes denoising queries: groups that hold every object once nearby (positive) and once farther off (negative).

    With n objects in the fullest image there are max(1, budget // n) groups, each of two blocks of n slots; the object
    of rank r in its image takes slot r of each block. A block's boxes move each side by up to one half side of the box
    (positives) or by one to two (negatives), times `box_noise`. Negatives and empty slots are background.
    Slots of a group see each other and the matching queries; nobody else sees denoising slots.

    Source: DN-DETR, Li et al. 2022, arXiv:2203.01305; contrastive groups: DINO, Zhang et al. 2022, arXiv:2203.03605.
    Deviation: `layout` "blocked" (compatibility) puts all positive blocks first, so that for several groups an object
    never meets its own negative (spec/losses H.14).
    """

    budget: Annotated[int, Field(ge=0)] = 100  # positive queries; 0 switches denoising off
    label_noise: Annotated[float, Field(ge=0, le=1)] = 0.5  # half of it is the probability of a random label
    box_noise: Annotated[float, Field(ge=0)] = 1.0
    layout: Literal["interleaved", "blocked"] = "interleaved"
    # Images with more objects than the budget: a random part of them, or all, beyond the budget (compatibility).
    crowded: Literal["subset", "all"] = "subset"

    def __post_init__(self) -> None:
        if self.budget < 0 or self.box_noise < 0 or not 0 <= self.label_noise <= 1:
            raise ConfigError(
                "Denoising: expected budget and box_noise of at least 0 and label_noise between 0 and 1, "
                f"got {self.budget}, {self.box_noise}, {self.label_noise}"
            )

    @torch.no_grad()
    def __call__(
        self,
        targets: Targets,
        image_size: tuple[int, int],
        num_classes: int,
        num_queries: int,
        generator: torch.Generator | None = None,
    ) -> DenoisingQueries:
        """Queries from random noise. Targets that were not prepared (`Criterion.prepare`) cost one host sync.

        Args:
            targets: the labels of the batch.
            image_size: (H, W) of the network input, px.
            num_classes: that labels may change to.
            num_queries: matching queries that follow in the decoder.
            generator: of the noise, on any device; torch's own where None.

        Raises:
            ShapeError: oriented boxes, or labels beyond the classes.
        """
        targets = with_objects(targets)
        rows = self._rows(targets, generator)
        blocks, count = 2 * self._groups(rows.most), len(rows.image)
        device = targets.boxes.device if generator is None else generator.device
        dtype = at_least_float32(targets.boxes[:0]).dtype

        def uniform(*shape: int) -> Tensor:
            return torch.rand(shape, generator=generator, device=device, dtype=dtype)

        noise = Noise(
            flip=uniform(blocks, count),
            label=torch.randint(num_classes, (blocks, count), generator=generator, device=device),
            sign=(uniform(blocks, count, 4) < 0.5).to(dtype) * 2 - 1,
            reach=uniform(blocks, count, 4),
        )
        return self._build(targets, rows, noise, image_size, num_classes, num_queries)

    @torch.no_grad()
    def from_noise(
        self, targets: Targets, noise: Noise, image_size: tuple[int, int], num_classes: int, num_queries: int
    ) -> DenoisingQueries:
        """Queries from given noise, of every object in the order image, slot.

        Raises:
            ShapeError: an image has more objects than the budget, so which take part is random; or as for a call.
        """
        targets = with_objects(targets)
        assert targets.objects is not None
        if self.crowded == "subset" and max(targets.objects.counts, default=0) > self.budget:
            raise ShapeError(
                f"Denoising.from_noise: expected at most {self.budget} objects in an image, the budget, got "
                f'{max(targets.objects.counts)}; draw the noise by a call, or use crowded="all"'
            )
        return self._build(targets, self._rows(targets, None), noise, image_size, num_classes, num_queries)

    def _groups(self, most: int) -> int:
        return max(1, self.budget // most) if most else 0

    def _rows(self, targets: Targets, generator: torch.Generator | None) -> "_Rows":
        """The objects that take part, and their rank inside the image."""
        objects = targets.objects
        assert objects is not None
        most = max(objects.counts, default=0) if self.budget else 0
        limit = min(most, self.budget) if self.crowded == "subset" else most
        counts = tuple(min(count, limit) for count in objects.counts)
        image, slot = objects.image, objects.slot
        if most > limit:
            image, slot = _random_part(image, slot, objects.counts, limit, sum(counts), generator)
        rank = torch.arange(len(image), device=image.device) - _first(image, counts)
        return _Rows(image, slot, rank, limit)

    def _build(
        self,
        targets: Targets,
        rows: "_Rows",
        noise: Noise,
        image_size: tuple[int, int],
        num_classes: int,
        num_queries: int,
    ) -> DenoisingQueries:
        if targets.oriented:
            raise ShapeError("Targets.boxes: denoising expects axis-aligned boxes (B, M, 4), got oriented ones")
        assert targets.objects is not None
        check_labels(targets.objects, num_classes)
        device, batch = targets.boxes.device, targets.labels.shape[0]
        noise = replace(noise, **{name: getattr(noise, name).to(device, non_blocking=True) for name in _NOISE})
        groups = self._groups(rows.most)
        size, block = 2 * groups * rows.most, torch.arange(2 * groups, device=device)
        negative = block % 2 == 1 if self.layout == "interleaved" else block >= groups
        slot = block[:, None] * rows.most + rows.rank  # (blocks, N)
        place = rows.image * size + slot

        given = targets.labels[rows.image, rows.slot].expand_as(slot)
        changed = torch.where(noise.flip < self.label_noise / 2, noise.label, given)
        labels = torch.full((batch * size,), -1, dtype=torch.int64, device=device)
        labels = labels.index_copy(0, place.flatten(), changed.flatten())

        boxes = self._moved(targets, rows, noise, negative, image_size)
        logits = boxes.new_zeros(batch * size, 4).index_copy(0, place.flatten(), boxes.flatten(0, 1))
        return DenoisingQueries(
            labels=labels.view(batch, size),
            box_logits=logits.view(batch, size, 4),
            blocked=_blocked(groups, 2 * rows.most, num_queries, device),
            known=_known(rows, place[self._positive(groups)], size, boxes),
            groups=groups,
        )

    def _positive(self, groups: int) -> slice:
        """The positive blocks."""
        return slice(0, None, 2) if self.layout == "interleaved" else slice(0, groups)

    def _moved(
        self, targets: Targets, rows: "_Rows", noise: Noise, negative: Tensor, image_size: tuple[int, int]
    ) -> Tensor:
        """(blocks, N, 4) logits of the noised boxes."""
        corners = at_least_float32(targets.boxes[rows.image, rows.slot])
        height, width = image_size
        corners = corners / constant((width, height, width, height), corners)
        half = (corners[:, 2:] - corners[:, :2]) / 2
        reach = noise.reach + negative[:, None, None].to(noise.reach.dtype)
        moved = corners + noise.sign * reach * self.box_noise * torch.cat((half, half), dim=-1)
        return logit(xyxy_to_cxcywh(moved.clamp(0, 1)))


_NOISE = ("flip", "label", "sign", "reach")


@dataclass(frozen=True)
class _Rows:
    image: Tensor  # (N,)
    slot: Tensor
    rank: Tensor  # inside the image
    most: int  # objects of the fullest image


def logit(share: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """ln(x / (1 - x)) of shares cut to [1e-6, 1 - 1e-6]; exact in float32, which has no 1 - 1e-6 of that precision.

    >>> [round(value, 4) for value in logit(torch.tensor([-1.0, 0.5, 1.0])).tolist()]
    [-13.8155, 0.0, 13.8155]
    """
    share = share.clamp(0, 1)
    return (share.log() - torch.log1p(-share)).clamp(-LOGIT_LIMIT, LOGIT_LIMIT)


def _first(image: Tensor, counts: tuple[int, ...]) -> Tensor:
    """Row at which each row's image begins; rows go by image."""
    held = torch.zeros(len(counts), dtype=torch.int64, device=image.device)
    held = held.index_add(0, image, torch.ones_like(image))
    return (held.cumsum(0) - held)[image]


def _random_part(
    image: Tensor, slot: Tensor, counts: tuple[int, ...], limit: int, kept: int, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """At most `limit` objects of every image, drawn at random, in their old order; `kept` of them altogether."""
    device = image.device if generator is None else generator.device
    key = torch.rand(len(image), generator=generator, device=device, dtype=torch.float64).to(image.device)
    shuffled = torch.argsort(image + key)
    rank = torch.arange(len(image), device=image.device) - _first(image[shuffled], counts)
    dropped = torch.empty_like(rank).index_copy(0, shuffled, rank) >= limit
    chosen = torch.sort(dropped.long(), stable=True).indices[:kept]
    return image[chosen], slot[chosen]


def _known(rows: _Rows, place: Tensor, size: int, like: Tensor) -> Assignment:
    """Pairs of the positive queries at these places (groups, N), by image, then query."""
    groups = place.shape[0]
    flat, order = torch.sort(place.flatten())
    image = torch.div(flat, max(size, 1), rounding_mode="floor")
    weight = like.new_ones(len(flat))
    return Assignment(
        image=image,
        anchor=flat - image * size,
        target=rows.slot.repeat(groups)[order],
        valid=weight > 0,
        weight=weight,
        normalizer=weight.sum().clamp(min=1),
    )


def _blocked(groups: int, group_size: int, num_queries: int, device: torch.device) -> Tensor:
    """(T, T) attention mask: nobody outside a group sees its slots."""
    group = torch.arange(groups * group_size + num_queries, device=device)
    group = torch.div(group, max(group_size, 1), rounding_mode="floor").clamp(max=groups)  # matching queries: last
    return (group[:, None] != group) & (group < groups)
