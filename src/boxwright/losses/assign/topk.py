# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Sorting the pairs of many objects at once: each object's best ones, and its best among those it kept."""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor


def expand(counts: Int64[Tensor, " N"], total: int) -> tuple[Int64[Tensor, " total"], Int64[Tensor, " total"]]:
    """For counts (2, 3): positions 0 1 0 1 2 within each, and the owners 0 0 1 1 1. The total is known on the host."""
    owner = torch.repeat_interleave(counts, output_size=total)
    first = torch.cumsum(counts, 0) - counts
    return torch.arange(total, device=counts.device).sub_(first.index_select(0, owner)), owner


def by_object_then_best(owner: Int64[Tensor, " P"], metric: Float[Tensor, " P"]) -> Int64[Tensor, " P"]:
    """Order: by object, each object's largest metric first, equal ones as they stood; not-a-number counts as largest.

    -1 marks what comes last.
    """
    if metric.dtype == torch.float32:
        # Bits of non-negative floats order like integers, so one sort does both. -1 comes last.
        bits = (metric.view(torch.int32) & 0x7FFFFFFF).masked_fill_(metric < 0, -1)
        return torch.sort((owner << 32).add_(0x7FFFFFFF).sub_(bits), stable=True).indices
    order = torch.sort(metric, descending=True, stable=True).indices
    return order[torch.sort(owner[order], stable=True).indices]


def among_best(
    group: Int64[Tensor, " P"],
    metric: Float[Tensor, " P"],
    alive: Bool[Tensor, " P"],
    cell: Int64[Tensor, " P"],
    anchor: Int64[Tensor, " P"],
    *,
    groups: int,
    topk: int,
    zero_metric: Literal["drop", "lowest_index"],
) -> Bool[Tensor, " P"]:
    """Whether each live pair is among its group's `topk` best by metric, the lowest cell first among equal ones.

    `group` numbers image and slot (below `groups`), `cell` image and anchor. Pairs with metric 0 are dropped, or
    compete with all other anchors of the image, which have metric 0 too, by anchor index (compatibility).
    """
    in_cells = torch.sort(cell, stable=True).indices
    live_metric = metric.masked_fill(~alive, -1.0).index_select(0, in_cells)
    of_group = group.index_select(0, in_cells)
    best = in_cells[by_object_then_best(of_group, live_metric)]
    none = torch.zeros(groups, dtype=torch.int64, device=group.device)
    members = none.index_add(0, group, torch.ones_like(group))
    first = torch.cumsum(members, 0) - members
    number = torch.arange(len(group), device=group.device)
    place = torch.empty_like(group).index_copy_(0, best, number)
    positive = alive & (metric != 0)
    kept = positive & (place - first.index_select(0, group) < topk)
    if zero_metric == "drop":
        return kept
    by_cell = in_cells[torch.sort(of_group, stable=True).indices]
    flags = positive.long()
    so_far = torch.cumsum(flags.index_select(0, by_cell), 0) - flags.index_select(0, by_cell)
    before = torch.empty_like(group).index_copy_(0, by_cell, so_far)
    positives = none.index_add(0, group, flags)
    # Positive pairs of earlier groups do not count.
    before = before - (torch.cumsum(positives, 0) - positives).index_select(0, group)
    ahead = positives.index_select(0, group) + anchor - before
    return kept | (alive & ~positive & (ahead < topk))
