# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The YOLOv5 criteria in two processes with a part of the batch each, against one with all of it (gloo, CPU)."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from tests.losses.anchor_scenes import by_level, pyramid, random_maps
from tests.losses.scenes import generator, random_targets

from boxwright.losses.criterion import Criterion
from boxwright.losses.recipes import yolov5_detect, yolov5_exclusive
from boxwright.losses.terms.objectness import AutoBalance
from boxwright.structures import Targets

COUNTS = {"uneven": (3, 7, 1, 5), "a rank without labels": (4, 0, 0, 0)}
RECIPES = ("detect", "exclusive", "adaptive")


def build(recipe: str) -> Criterion:
    if recipe == "exclusive":
        return yolov5_exclusive()
    return yolov5_detect(balance=AutoBalance() if recipe == "adaptive" else "published")


def steps(recipe: str, name: str, images: slice) -> dict[str, Any]:
    """Two steps on some images: the second one sees a balance that has moved."""
    grid, targets, criterion = pyramid(), random_targets(generator(0), COUNTS[name]), build(recipe)
    maps = [of.detach()[images].clone().requires_grad_() for of in random_maps(generator(0), 4, grid)]
    mine = Targets(targets.labels[images], targets.boxes[images], targets.valid[images])
    prepared = criterion.prepare(mine, grid)
    totals = []
    for _ in range(2):
        for of in maps:
            of.grad = None
        loss = criterion(by_level(maps, grid, exclusive=recipe == "exclusive"), prepared)
        loss.total.backward()
        totals.append(loss.total.item())
    return {"totals": totals, "gradients": [of.grad for of in maps], "state": criterion.state_dict()}


def work(rank: int, name: str, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    images = slice(0, 1) if rank == 0 else slice(1, 4)
    torch.save({recipe: steps(recipe, name, images) for recipe in RECIPES}, f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.parametrize("name", COUNTS)
def test_two_ranks_equal_one(name: str, tmp_path: Path) -> None:
    mp.spawn(work, (name, str(tmp_path)), nprocs=2)

    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    for recipe in RECIPES:
        whole, (first, second) = steps(recipe, name, slice(None)), (rank[recipe] for rank in ranks)
        # DDP takes the mean of the ranks' gradients, and a log the mean of their totals.
        means = [(a + b) / 2 for a, b in zip(first["totals"], second["totals"], strict=True)]
        assert means == pytest.approx(whole["totals"], rel=1e-12), recipe
        for wanted, *parts in zip(whole["gradients"], first["gradients"], second["gradients"], strict=True):
            assert torch.allclose(torch.cat(parts) / 2, wanted, rtol=1e-10, atol=1e-15), recipe
        assert set(first["state"]) == set(whole["state"]) == ({"main/obj"} if recipe == "adaptive" else set())
        for key, balance in whole["state"].items():
            assert first["state"][key] == second["state"][key] == pytest.approx(balance, rel=1e-12)
