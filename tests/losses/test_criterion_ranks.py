# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Two processes with half of the batch each take the same step as one with all of it (gloo, CPU)."""

import dataclasses
import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from tests.losses.scenes import criterion, generator, random_predictions, random_targets

from boxwright.structures import Outputs, Predictions, Targets

SPLITS = {"even": (2, 4), "uneven": (1, 4), "a rank without labels": (2, 4)}


def scene(name: str) -> tuple[Predictions, Targets]:
    counts = (3, 7, 0, 0) if name == "a rank without labels" else (3, 7, 1, 5)
    return random_predictions(generator(0), 4), random_targets(generator(0), counts)


def part(preds: Predictions, targets: Targets, images: slice) -> tuple[Predictions, Targets]:
    mine = {name: getattr(preds, name).detach()[images].clone().requires_grad_() for name in ("logits", "box_raw")}
    return dataclasses.replace(preds, **mine), Targets(
        targets.labels[images], targets.boxes[images], targets.valid[images]
    )


def step(preds: Predictions, targets: Targets) -> dict[str, torch.Tensor]:
    rules = criterion()
    loss = rules(Outputs(preds), rules.prepare(targets, preds.grid))
    loss.total.backward()
    return {
        "total": loss.total.detach(),
        "normalizer": loss.assignments["main"].normalizer,
        "logits": preds.logits.grad,
        "box_raw": preds.box_raw.grad,
    }


def work(rank: int, name: str, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    first, end = SPLITS[name]
    images = slice(0, first) if rank == 0 else slice(first, end)
    torch.save(step(*part(*scene(name), images)), f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.parametrize("name", SPLITS)
def test_two_ranks_equal_one(name: str, tmp_path: Path) -> None:
    mp.spawn(work, (name, str(tmp_path)), nprocs=2)

    whole = step(*part(*scene(name), slice(None)))
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]

    assert [rank["normalizer"].item() for rank in ranks] == pytest.approx([whole["normalizer"].item()] * 2, rel=1e-12)
    # DDP takes the mean of the ranks' gradients, and a log the mean of their totals.
    assert sum(rank["total"].item() for rank in ranks) / 2 == pytest.approx(whole["total"].item(), rel=1e-12)
    for leaf in ("logits", "box_raw"):
        joined = torch.cat([rank[leaf] for rank in ranks]) / 2
        assert torch.allclose(joined, whole[leaf], rtol=1e-10, atol=1e-15)
