# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Several ranks under torchrun (gloo on CPU) do what one process does."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from boxwright.config import to_yaml
from boxwright.engine.distributed import announced, mean_over_ranks, same_everywhere
from boxwright.errors import ConfigError

SCRIPT = Path(__file__).with_name("ranks.py")


def launch(ranks, task, recipe_file, out):
    environment = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    environment["OMP_NUM_THREADS"] = "1"
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)] if ranks > 1 else []
    command = [sys.executable, *torchrun, str(SCRIPT), task, str(recipe_file), str(out)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)


@pytest.fixture(scope="module")
def recipe_file(tiny_recipe, tmp_path_factory):
    # A rate without warm-up, so that the two batches of a step are summed from the start.
    recipe = tiny_recipe("train.optimizer=sgd", "train.lr0=0.01", "train.warmup_epochs=0.0")
    path = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    path.write_text(to_yaml(recipe))
    return path


@pytest.fixture(scope="module")
def steps(recipe_file, tmp_path_factory):
    """Folders of the steps of one rank and of two; starting processes takes longer than what they do."""
    folders = []
    for ranks in (1, 2):
        folders.append(tmp_path_factory.mktemp(f"ranks{ranks}"))
        done = launch(ranks, "steps", recipe_file, folders[-1])
        assert done.returncode == 0, done.stderr
    return folders


@pytest.mark.parametrize("labels", ["all", "half"])
def test_two_ranks_take_the_step_of_one(steps, labels):
    """2 x 4 images against 1 x 8, batch statistics fixed; with `half`, rank 1 never has a label."""
    one, two = (torch.load(folder / f"{labels}.pt", weights_only=True) for folder in steps)

    # Sums in another order: roundings of float32 (6e-8) that grow a little on their way back through the network. A
    # wrong normalizer or scale on one rank would be off by percents.
    torch.testing.assert_close(two["losses"], one["losses"], rtol=2e-6, atol=1e-7)
    assert one["gradients"].keys() == two["gradients"].keys() != set()
    for part in ("moved", "gradients"):
        for name, expected in one[part].items():
            if expected.numel() and expected.is_floating_point():
                limit = 2e-5 * expected.abs().max().item() + 1e-7
                torch.testing.assert_close(two[part][name], expected, rtol=0, atol=limit, msg=f"{part} {name}")
    assert max(moved.abs().max().item() for moved in one["moved"].values() if moved.numel()) > 1e-4


def test_a_whole_run_on_two_ranks_writes_from_rank_0_only(recipe_file, tmp_path):
    done = launch(2, "fit", recipe_file, tmp_path / "run")

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "weights" / "best.safetensors").exists()
    assert len((tmp_path / "run" / "metrics.csv").read_text().splitlines()) == 3
    metric, *_ = (tmp_path / "rank-0.txt").read_text().splitlines()
    metric_1, *written = (tmp_path / "rank-1.txt").read_text().splitlines()
    assert metric == metric_1  # validation was shared, merged and told to both
    assert written == []


def test_a_failing_rank_ends_the_others(recipe_file, tmp_path):
    began = time.monotonic()

    done = launch(2, "fail", recipe_file, tmp_path / "run")

    assert done.returncode != 0
    assert "this rank fails" in done.stderr
    assert time.monotonic() - began < 120


def test_environment_without_torchrun_is_one_rank(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)

    assert (announced().rank, announced().world, announced().first) == (0, 1, True)


@pytest.mark.parametrize(("rank", "world", "message"), [("x", "2", "must be integers"), ("2", "2", "outside 0..1")])
def test_wrong_environment_is_named(monkeypatch, rank, world, message):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", world)

    with pytest.raises(ConfigError, match=message):
        announced()


def test_exchanges_are_the_identity_alone():
    tensors = {"a": torch.tensor([1.0, 2.0])}

    assert same_everywhere("x") == "x"
    assert torch.equal(mean_over_ranks(tensors)["a"], tensors["a"])
