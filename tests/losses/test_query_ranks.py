# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Two processes with half of the batch each take the same set prediction step as one with all of it (gloo, CPU)."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from tests.losses.query_scenes import fresh, labelled_targets, layers, leaves_of, part_of
from tests.losses.scenes import generator
from tests.losses.test_query_recipes import DENOISING, RECIPES

from boxwright.structures import Outputs, Targets

COUNTS = {"objects everywhere": (3, 7, 1, 5), "a rank without objects": (3, 7, 0, 0), "no objects": (0, 0, 0, 0)}
HALVES = (slice(0, 2), slice(2, 4))


def scene(name: str) -> tuple[Outputs, Targets]:
    source = generator(0)
    targets = labelled_targets(source, COUNTS[name])
    return layers(source, targets, decoder=2, denoising=DENOISING, attributes=True), targets


def steps(name: str, images: slice) -> dict[str, Any]:
    """Total and gradients of every recipe."""
    made = {}
    for recipe, rules in RECIPES.items():
        outputs, targets = scene(name)
        outputs, targets = fresh(outputs, images), part_of(targets, images)
        loss = rules(outputs, rules.prepare(targets, None))
        loss.total.backward()
        made[recipe] = {"total": loss.total.detach(), "leaves": [leaf.grad for leaf in leaves_of(outputs)]}
    return made


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    for index, name in enumerate(COUNTS):
        torch.save(steps(name, HALVES[rank]), f"{folder}/{index}-{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ranks")
    mp.spawn(work, (str(path),), nprocs=2)
    return path


@pytest.mark.parametrize("name", COUNTS)
def test_two_ranks_equal_one(name: str, folder: Path) -> None:
    index = list(COUNTS).index(name)
    ranks = [torch.load(folder / f"{index}-{rank}.pt", weights_only=True) for rank in (0, 1)]

    for recipe, whole in steps(name, slice(None)).items():
        one, other = (rank[recipe] for rank in ranks)
        # DDP takes the mean of the ranks' gradients, and a log the mean of their totals.
        total = (one["total"] + other["total"]).item() / 2
        assert total == pytest.approx(whole["total"].item(), rel=1e-12), recipe
        for a, b, expected in zip(one["leaves"], other["leaves"], whole["leaves"], strict=True):
            assert torch.allclose(torch.cat((a, b)) / 2, expected, rtol=1e-10, atol=1e-15), recipe
