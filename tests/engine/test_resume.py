# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""An interrupted and resumed run ends with the bits of an uninterrupted one."""

import csv
import os
import random
import signal
import subprocess
import sys
import textwrap
import time

import pytest
import torch

from boxwright.config import to_yaml
from boxwright.engine.logs import Listener
from boxwright.engine.trainer import Trainer
from boxwright.errors import CheckpointError, ConfigError


class Messages(Listener):
    def __init__(self):
        self.texts = []

    def message(self, text, severity="info"):
        self.texts.append(text)


class Interrupts(Messages):
    """Presses Ctrl-C at the second batch of an epoch."""

    def __init__(self, epoch):
        super().__init__()
        self.name, self.now = f"train {epoch}/", ""

    def stage(self, name, total):
        self.now = name

    def advance(self, done, values):
        if self.now.startswith(self.name):
            raise KeyboardInterrupt


def assert_same_run(left, right):
    """Weights, average, optimizer, gradients in flight and all numbers but the speed are equal to the bit."""
    a, b = (torch.load(folder / "state.pt", weights_only=True) for folder in (left, right))
    for part in ("model", "ema", "gradients"):
        assert a[part].keys() == b[part].keys()
        for name, value in a[part].items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(b[part][name])), f"{part} {name}"
    for index, slots in a["optimizer"]["state"].items():
        for name, value in slots.items():
            assert torch.equal(value, b["optimizer"]["state"][index][name]), f"optimizer {index} {name}"
    for name in ("epoch", "best_fitness", "best_epoch", "last_step"):
        assert a[name] == b[name]
    for name in ("last", "best"):
        files = [folder / "weights" / f"{name}.safetensors" for folder in (left, right)]
        from boxwright.models.weights import read_state

        first, second = map(read_state, files)
        assert all(torch.equal(first[key], second[key]) for key in first)
    rows = []
    for folder in (left, right):
        with (folder / "metrics.csv").open() as file:
            rows.append(
                [{k: v for k, v in row.items() if k not in ("images/s", "seconds")} for row in csv.DictReader(file)]
            )
    assert rows[0] == rows[1]


@pytest.fixture(scope="module")
def whole(tiny_recipe, tmp_path_factory):
    """(recipe, folder) of four epochs without interruption, two loader processes."""
    recipe = tiny_recipe("train.epochs=4", "train.workers=2")
    folder = tmp_path_factory.mktemp("whole") / "run"
    Trainer(recipe, folder).fit()
    return recipe, folder


def test_two_epochs_and_two_resumed_equal_four(whole, tmp_path):
    recipe, folder = whole
    first = Trainer(recipe, tmp_path / "run").fit(stop_after=2)
    assert not first.finished

    result = Trainer(recipe, tmp_path / "run", resume=True).fit()

    assert result.finished
    assert_same_run(folder, tmp_path / "run")
    # An accumulation was in flight at the interruption, so that its gradients were part of the test.
    state = torch.load(folder / "state.pt", weights_only=True)
    assert len(state["gradients"]) > 100


def test_the_number_of_workers_changes_nothing(whole, tiny_recipe, tmp_path):
    Trainer(whole[0], tmp_path / "run").fit(stop_after=1)

    Trainer(tiny_recipe("train.epochs=4", "train.workers=0"), tmp_path / "run", resume=True).fit()

    assert_same_run(whole[1], tmp_path / "run")


def test_ctrl_c_says_how_to_resume_and_resume_is_exact(whole, tmp_path):
    listener = Interrupts(epoch=3)
    with pytest.raises(KeyboardInterrupt):
        Trainer(whole[0], tmp_path / "run", listener=listener).fit()
    said = "interrupted in epoch 3; epochs 1 to 2 are saved. Continue from there with: boxwright train --resume"
    assert f"{said} {tmp_path}/run" in listener.texts

    messages = Messages()
    Trainer(whole[0], tmp_path / "elsewhere", listener=messages, resume=tmp_path / "run").fit()

    assert f"resuming {tmp_path}/run after epoch 2" in messages.texts
    assert not (tmp_path / "elsewhere").exists()
    assert_same_run(whole[1], tmp_path / "run")


def test_interrupted_in_the_first_epoch_starts_again(whole, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        Trainer(whole[0], tmp_path / "run", listener=Interrupts(epoch=1)).fit()

    messages = Messages()
    Trainer(whole[0], tmp_path / "run", listener=messages, resume=True).fit()

    assert any("no epoch was finished; starting again" in text for text in messages.texts)
    assert_same_run(whole[1], tmp_path / "run")


def test_a_finished_run_resumes_to_its_result(whole):
    before = (whole[1] / "state.pt").read_bytes()

    result = Trainer(whole[0], whole[1], resume=True).fit()

    assert result.finished
    assert "box/ap50_95" in result.metrics
    assert (whole[1] / "state.pt").read_bytes() == before


def test_more_epochs_are_allowed_and_said(tiny_recipe, tmp_path):
    Trainer(tiny_recipe("train.epochs=1"), tmp_path / "run").fit()
    messages = Messages()

    Trainer(tiny_recipe("train.epochs=2"), tmp_path / "run", listener=messages, resume=True).fit()

    assert "resume: train.epochs: was 1, now 2" in messages.texts
    assert len((tmp_path / "run" / "metrics.csv").read_text().splitlines()) == 3


def test_other_changes_are_refused_by_name(tiny_recipe, tmp_path):
    Trainer(tiny_recipe("train.epochs=2"), tmp_path / "run").fit(stop_after=1)
    changed = tiny_recipe("train.batch=4", "criterion.rules.main.assigner.topk=13", "train.patience=5")

    with pytest.raises(ConfigError) as caught:
        Trainer(changed, tmp_path / "run", resume=True).fit()

    assert "train.batch: was 8, now 4" in str(caught.value)
    assert "criterion.rules.main.assigner.topk: was 10, now 13" in str(caught.value)
    assert "patience: was" not in str(caught.value)


def test_nothing_to_resume_is_an_error(tiny_recipe, tmp_path):
    with pytest.raises(CheckpointError, match="holds no run to resume"):
        Trainer(tiny_recipe(), tmp_path / "run", resume=True).fit()


KILLED = textwrap.dedent("""
    import sys
    from pathlib import Path
    import torch
    from boxwright.config import from_yaml
    from boxwright.engine.recipe import Recipe
    from boxwright.engine.trainer import Trainer
    torch.set_num_threads(1)
    folder = Path(sys.argv[2])
    recipe = from_yaml(Recipe, Path(sys.argv[1]).read_text())
    Trainer(recipe, folder, resume=(folder / "recipe.yaml").exists()).fit()
""")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_at_twenty_random_moments_it_always_resumes_and_ends_equal(tiny_recipe, tmp_path):
    recipe = tiny_recipe("train.epochs=12", "train.workers=1")
    (tmp_path / "recipe.yaml").write_text(to_yaml(recipe))

    def start(folder):
        command = [sys.executable, "-c", KILLED, str(tmp_path / "recipe.yaml"), str(folder)]
        with (tmp_path / "errors.txt").open("w") as errors:
            return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True)

    def errors():
        return (tmp_path / "errors.txt").read_text()

    whole = start(tmp_path / "whole")
    assert whole.wait(600) == 0, errors()

    # Kills only count once the run exists; some fall into the start of a process, most into epochs and writing.
    chance, kills, finished = random.Random(0), 0, 0
    while kills < 20:
        folder = tmp_path / f"killed-{finished}"
        process = start(folder)
        state = folder / "state.pt"
        began, before = time.monotonic(), state.stat().st_mtime_ns if state.exists() else 0
        while process.poll() is None and not (folder / "recipe.yaml").exists():
            time.sleep(0.01)
        # Half of the moments are spread over the whole life, half fall shortly after a new state appeared.
        if chance.random() < 0.5:
            time.sleep(chance.uniform(0, 8))
        else:
            while process.poll() is None and time.monotonic() - began < 60:
                if state.exists() and state.stat().st_mtime_ns != before:
                    break
                time.sleep(0.002)
            time.sleep(chance.uniform(0, 0.6))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
            continue
        assert process.returncode == 0, errors()
        assert_same_run(tmp_path / "whole", folder)
        finished += 1
    last = start(tmp_path / f"killed-{finished}")
    assert last.wait(600) == 0, errors()
    assert_same_run(tmp_path / "whole", tmp_path / f"killed-{finished}")
