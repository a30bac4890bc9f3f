# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Sums over ranks: the identity in a single process, so the losses need not know whether they are distributed."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist
from torch import Tensor

_ALONE = [False]


def world_size() -> int:
    """Number of ranks that share a step; 1 when not distributed or inside `alone()`."""
    if _ALONE[0] or not (dist.is_available() and dist.is_initialized()):
        return 1
    return dist.get_world_size()


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """The sum of a tensor over all ranks, without gradient. Every rank must call it; no collective for one rank."""
    if world_size() == 1:
        return tensor
    total = tensor.detach().clone()
    dist.all_reduce(total)
    return total


@contextmanager
def alone() -> Iterator[None]:
    """Inside, this rank computes for itself: for validation, where ranks may hold different numbers of batches."""
    before, _ALONE[0] = _ALONE[0], True
    try:
        yield
    finally:
        _ALONE[0] = before
