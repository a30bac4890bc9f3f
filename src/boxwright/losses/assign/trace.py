# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Why each candidate of an object became a positive or not: what `assigner.trace` returns for every assigner.

Outside the training step, so it may sync and take its time; the decision itself is never made a second time: fates are
read from the pairs that the assigner returned.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from boxwright.errors import ShapeError
from boxwright.structures import Assignment, Predictions, Targets

Fate = Literal[
    "positive",  # learns from the object
    "lost",  # the object asked for it; another one (`other`) has it
    "outside_topk",  # not among the object's best
    "outside_second_topk",  # among its best, dropped by the second, smaller choice
    "no_metric",  # score or overlap is 0
    "outside_box",  # its centre is not inside the box
    "outside_level_range",  # its level is not meant for objects of this size
    "ratio_over_limit",  # width or height differ from the prior's by too large a factor
    "below_threshold",  # its prior overlaps less than the object's own threshold
    "not_chosen",  # another query costs less
]
FATES: tuple[Fate, ...] = get_args(Fate)
_CODE = {fate: code for code, fate in enumerate(FATES)}


@dataclass(frozen=True, slots=True)
class Trace:
    """The candidates that an assigner weighed for every object, best first within each; rows go by image and slot."""

    image: Int64[Tensor, " T"]
    slot: Int64[Tensor, " T"]
    anchor: Int64[Tensor, " T"]
    score: Float[Tensor, " T"]  # probability of the object's class; NaN where the assigner does not look at it
    overlap: Float[Tensor, " T"]  # of the predicted box (ATSS: of the prior); NaN where it is not looked at
    metric: Float[Tensor, " T"]  # what candidates are ranked by, larger is better
    rank: Int64[Tensor, " T"]  # place among the object's candidates, from 0
    fate: Int64[Tensor, " T"]  # index into FATES
    other: Int64[Tensor, " T"]  # slot of the object that has the candidate, where it was lost; else -1

    def fates(self) -> list[Fate]:
        """The fate of every row in words."""
        return [FATES[code] for code in self.fate.tolist()]


def trace_of(assigner: object, preds: Predictions, targets: Targets, pairs: Assignment) -> Trace:
    """What `assigner.trace` says, or the positives alone for an assigner that has none."""
    tell = getattr(assigner, "trace", None)
    return positives(preds, pairs) if tell is None else tell(preds, targets, pairs)


def positives(preds: Predictions, pairs: Assignment) -> Trace:
    """A trace of nothing but the pairs."""
    rows = pairs.valid.nonzero()[:, 0]
    unknown = torch.full((len(rows),), torch.nan, dtype=pairs.weight.dtype, device=rows.device)
    return build_trace(
        preds, pairs, pairs.image[rows], pairs.target[rows], pairs.anchor[rows], unknown, unknown, pairs.weight[rows]
    )


def build_trace(
    preds: Predictions,
    pairs: Assignment,
    image: Int64[Tensor, " T"],
    slot: Int64[Tensor, " T"],
    anchor: Int64[Tensor, " T"],
    score: Float[Tensor, " T"],
    overlap: Float[Tensor, " T"],
    metric: Float[Tensor, " T"],
    *,
    wanted: int | Int64[Tensor, " T"] | None = None,
    otherwise: Fate | Int64[Tensor, " T"] = "outside_topk",
) -> Trace:
    """Ranks the candidates of every object and reads their fates from the pairs.

    Args:
        preds: what the pairs are of.
        pairs: what the assigner decided.
        image: of every row, as the following.
        slot: object.
        anchor: candidate.
        score: see `Trace`.
        overlap: see `Trace`.
        metric: see `Trace`.
        wanted: how many of its best an object asked for; of these, what another object has was lost. None: all.
        otherwise: fate of what is neither positive nor lost, or codes of it by row.
    """
    if len({len(column) for column in (image, slot, anchor, score, overlap, metric)}) != 1:
        raise ShapeError("build_trace: expected columns of one length")
    order, rank = _ranked(image, slot, anchor, metric)
    image, slot, anchor, score, overlap, metric = (
        column[order] for column in (image, slot, anchor, score, overlap, metric)
    )
    mine, holder = _holders(preds, pairs, image, slot, anchor)
    limit = wanted[order] if isinstance(wanted, Tensor) else wanted
    wished = torch.ones_like(mine) if limit is None else rank < limit
    lost = ~mine & wished & (holder >= 0)
    rest = otherwise[order] if isinstance(otherwise, Tensor) else torch.full_like(rank, _CODE[otherwise])
    fate = torch.where(lost, torch.full_like(rank, _CODE["lost"]), rest)
    fate = torch.where(mine, torch.full_like(rank, _CODE["positive"]), fate)
    other = torch.where(lost, holder, torch.full_like(holder, -1))
    return Trace(image, slot, anchor, score, overlap, metric, rank, fate, other)


@dataclass(frozen=True, slots=True)
class Places:
    """Candidates of objects."""

    image: Int64[Tensor, " T"]
    slot: Int64[Tensor, " T"]
    anchor: Int64[Tensor, " T"]


def join_places(preds: Predictions, targets: Targets, *parts: Places) -> Places:
    """Every place of the parts once, by image, slot and candidate. Syncs."""
    slots, anchors = max(targets.labels.shape[1], 1), preds.logits.shape[1]
    keys = torch.cat([(part.image * slots + part.slot) * anchors + part.anchor for part in parts])
    keys = keys.unique()  # type: ignore[no-untyped-call]
    objects = keys // anchors
    return Places(objects // slots, objects % slots, keys % anchors)


def nearest_cells(
    preds: Predictions, targets: Targets, image: Int64[Tensor, " T"], slot: Int64[Tensor, " T"]
) -> Places:
    """For every object that has no row yet, the cell of each level that is nearest to its centre."""
    slots = targets.labels.shape[1]
    known = torch.zeros(targets.valid.numel() + 1, dtype=torch.bool, device=image.device)
    known[image * slots + slot] = True
    missing = (targets.valid.flatten() & ~known[:-1]).nonzero()[:, 0]
    of_image, of_slot = missing // max(slots, 1), missing % max(slots, 1)
    boxes = targets.boxes.flatten(0, 1)[missing]
    centre = boxes[:, :2] if targets.oriented else (boxes[:, :2] + boxes[:, 2:]) / 2
    grid, first, anchors = preds.cells, 0, []
    for (rows, columns), stride, size in zip(grid.shapes, grid.level_strides, grid.level_sizes, strict=True):
        column = (centre[:, 0] / stride).floor().long().clamp(0, columns - 1)
        row = (centre[:, 1] / stride).floor().long().clamp(0, rows - 1)
        priors = 1 if grid.prior_first else size // (rows * columns)
        anchors.append(first + (row * columns + column) * priors)
        first += size
    levels = len(anchors)
    joined = torch.cat(anchors) if anchors else missing
    return Places(of_image.repeat(levels), of_slot.repeat(levels), joined)


def code_of(fate: Fate) -> int:
    """The number that stands for a fate in `Trace.fate`."""
    return _CODE[fate]


def _ranked(image: Tensor, slot: Tensor, anchor: Tensor, metric: Tensor) -> tuple[Tensor, Tensor]:
    """Rows by image, slot, best first (equal ones by candidate), and the place of each within its object."""
    number = torch.arange(len(image), device=image.device)
    if not len(number):
        return number, number
    thing = image * (slot.max() + 1) + slot
    key = thing * (anchor.max() + 1) + anchor
    by_place = number if bool((key[1:] >= key[:-1]).all()) else torch.argsort(key, stable=True)
    best_first = torch.argsort(metric[by_place].nan_to_num(nan=-torch.inf), descending=True, stable=True)
    order = by_place[best_first]
    order = order[torch.argsort(thing[order], stable=True)]
    thing = thing[order]
    begins = torch.ones_like(number, dtype=torch.bool)
    begins[1:] = thing[1:] != thing[:-1]
    first = torch.where(begins, number, torch.zeros_like(number)).cummax(0).values
    return order, number - first


def _holders(
    preds: Predictions, pairs: Assignment, image: Tensor, slot: Tensor, anchor: Tensor
) -> tuple[Tensor, Tensor]:
    """Whether each row is one of the pairs, and the slot (the last of several) that has its candidate, -1 for none."""
    batch, anchors = preds.logits.shape[:2]
    place = torch.where(pairs.valid, pairs.image * anchors + pairs.anchor, batch * anchors)
    holder = torch.full((batch * anchors + 1,), -1, device=place.device)
    holder = holder.scatter_reduce(0, place, pairs.target, "amax")
    holder[-1] = -1
    slots = int(max(int(slot.max()) if len(slot) else 0, int(pairs.target.max()) if len(pairs.target) else 0)) + 1
    made = (pairs.image * anchors + pairs.anchor)[pairs.valid] * slots + pairs.target[pairs.valid]
    mine = torch.isin((image * anchors + anchor) * slots + slot, made)
    return mine, holder[image * anchors + anchor]
