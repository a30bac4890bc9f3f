# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Ranks: joining the group that torchrun announces, and the few exchanges the trainer needs.

We write no launcher. `torchrun --nproc-per-node N -m boxwright train ...` sets the environment read here; a rank that
fails exits, and torchrun then ends the others, so nobody waits for a rank that is gone.
Batch normalisation uses each rank's own share of the batch (no synchronised statistics); the running statistics of
rank 0 are the ones that are validated and saved.
"""

import gc
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from boxwright.errors import ConfigError

T = TypeVar("T")
_TIMEOUT = timedelta(minutes=30)  # rank 0 alone may draw plots or read a large label cache meanwhile


@dataclass(frozen=True, slots=True)
class Ranks:
    """Which process this is, among how many."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0

    @property
    def first(self) -> bool:
        """True on the one rank that writes and speaks."""
        return self.rank == 0


def announced() -> Ranks:
    """What the environment says (torchrun's RANK, WORLD_SIZE, LOCAL_RANK); one process where it says nothing.

    Raises:
        ConfigError: a variable is not a number, or the rank does not fit the world.
    """
    try:
        found = Ranks(
            rank=int(os.environ.get("RANK", "0")),
            world=int(os.environ.get("WORLD_SIZE", "1")),
            local_rank=int(os.environ.get("LOCAL_RANK", "0")),
        )
    except ValueError as error:
        raise ConfigError(f"RANK, WORLD_SIZE and LOCAL_RANK in the environment must be integers: {error}") from None
    if not 0 <= found.rank < found.world:
        raise ConfigError(
            f"RANK={found.rank} in the environment is outside 0..{found.world - 1} (WORLD_SIZE={found.world})"
        )
    return found


@contextmanager
def process_group(device_type: str) -> Iterator[Ranks]:
    """Joins the announced group for the time of the block; a group that exists already is used and left as it is."""
    if dist.is_available() and dist.is_initialized():
        yield Ranks(dist.get_rank(), dist.get_world_size(), announced().local_rank)
        return
    ranks = announced()
    if ranks.world == 1:
        yield ranks
        return
    dist.init_process_group("nccl" if device_type == "cuda" else "gloo", timeout=_TIMEOUT)
    # After an error nothing is exchanged or joined: the process is about to end, and torchrun then ends the others.
    yield ranks
    _quiet()
    dist.destroy_process_group()


def _quiet() -> None:
    """Lets the group's threads finish with our tensors before the group is destroyed.

    torch joins gloo's threads while it holds Python's lock, and a thread that lets go of a tensor needs that lock
    (seen with torch 2.13: a rank that never ended).
    """
    dist.barrier()
    gc.collect()  # whatever still refers to the group, such as a data-parallel wrapper in a cycle
    time.sleep(0.1)


def same_everywhere(value: T) -> T:
    """Rank 0's value, on every rank. Plain values only."""
    if not _several():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def broadcast_state(module: nn.Module) -> None:
    """Overwrites the module's state with rank 0's."""
    if _several():
        with torch.no_grad():
            for tensor in module.state_dict().values():
                dist.broadcast(tensor, src=0)


def mean_over_ranks(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies of the float32 tensors, averaged over ranks; every rank must hold the same names."""
    if not _several():
        return dict(tensors)
    if not tensors:
        return {}
    flat = torch.cat([tensor.detach().float().reshape(-1) for tensor in tensors.values()])  # one exchange for all
    dist.all_reduce(flat)
    parts = torch.split(flat / dist.get_world_size(), [tensor.numel() for tensor in tensors.values()])
    return {name: part.reshape(tensors[name].shape) for name, part in zip(tensors, parts, strict=True)}


def wait_for_all() -> None:
    """Returns when every rank has arrived."""
    if _several():
        dist.barrier()


def _several() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
