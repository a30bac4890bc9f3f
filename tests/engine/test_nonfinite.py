# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""A loss or gradient that is not finite: where it is found, what is saved, what stays."""

from pathlib import Path

import pytest
import torch

from boxwright.engine.assemble import assemble
from boxwright.engine.checkpoint import save_state
from boxwright.engine.distributed import Ranks
from boxwright.engine.logs import Listener
from boxwright.engine.nonfinite import find, read_replay
from boxwright.engine.step import prepare, to_network
from boxwright.engine.trainer import Trainer
from boxwright.errors import CheckpointError, TrainingError
from boxwright.structures import Assignment, LossBreakdown, LossItem


def breakdown_of(box, cls):
    pairs = Assignment(
        image=torch.tensor([0, 3]),
        anchor=torch.tensor([10, 20]),
        target=torch.tensor([1, 2]),
        valid=torch.tensor([True, True]),
        weight=torch.ones(2),
        normalizer=torch.tensor(1.0),
    )
    items = (LossItem("main/box", torch.tensor(box), 7.5), LossItem("main/cls", torch.tensor(cls), 0.5))
    return LossBreakdown(items, {"main": pairs}, 4.0)


def test_find_names_term_image_and_object_of_a_pair():
    found = find(breakdown_of([1.0, float("nan")], [[0.0]] * 4))

    assert found.terms == ("main/box",)
    assert found.images == (3,)
    assert found.entry == "main/box: 1 of 2 contributions, first nan at image 3 of the batch, candidate 20, object 2"


def test_find_names_image_and_candidate_of_a_dense_term():
    found = find(breakdown_of([1.0, 2.0], [[0.0, 0.0], [0.0, float("inf")], [0.0, 0.0], [float("nan"), 0.0]]))

    assert found.terms == ("main/cls",)
    assert found.images == (1, 3)
    assert found.entry == "main/cls: 2 of 8 contributions, first inf at image 1 of the batch, candidate 1"


def test_find_says_when_only_the_sum_overflows():
    found = find(breakdown_of([3e38, 3e38], [[0.0]] * 4))

    assert found.terms == ()
    assert found.entry == "every item is finite, their sum is not"


def poison(folder: Path, name: str, value: float) -> None:
    state = torch.load(folder / "state.pt", weights_only=True)
    state["model"][name][1] = value
    del state["format"]
    save_state(folder / "state.pt", state)


def test_a_run_stops_names_the_place_and_loses_nothing(tiny_recipe, tmp_path):
    recipe = tiny_recipe("train.epochs=3")
    Trainer(recipe, tmp_path / "run").fit(stop_after=1)
    poison(tmp_path / "run", "head.class_branches.1.2.bias", float("nan"))
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}

    with pytest.raises(TrainingError) as caught:
        Trainer(recipe, tmp_path / "run", resume=True).fit()

    message = str(caught.value)
    assert "epoch 2, iteration 3: the loss is not finite (nan)" in message
    assert "main/cls" in message
    assert "images/train/" in message
    saved = tmp_path / "run" / "nonfinite" / "iteration-000003.pt"
    assert str(saved) in message
    assert all(path.read_bytes() == content for path, content in before.items())
    replay = read_replay(saved)
    assert (replay.epoch, replay.iteration, len(replay.paths)) == (2, 3, 8)
    assert Path(replay.paths[0]).is_file()
    # The saved batch and weights show the same non-finite term again.
    model = recipe.model.build().train()
    model.load_state_dict(dict(replay.weights))
    outputs = model(to_network(replay.images, torch.device("cpu"), channels_last=True))
    assert "main/cls" in find(recipe.criterion(outputs, replay.targets)).terms


def test_a_gradient_that_is_not_finite_names_its_parameter(tiny_recipe, tmp_path):
    parts = assemble(
        tiny_recipe("train.warmup_epochs=0.0", "train.nominal_batch=8"),
        ranks=Ranks(),
        device=torch.device("cpu"),
        folder=tmp_path,
        listener=Listener(),
    )
    parts.model.backbone.layers[0].conv.weight.register_hook(lambda gradient: gradient * float("inf"))
    before = {name: tensor.clone() for name, tensor in parts.model.named_parameters()}

    with pytest.raises(
        TrainingError, match=r"the loss is finite, but not the gradient of backbone.layers.0.conv.weight;"
    ):
        parts.stepper.run(next(iter(parts.train)), 0, 1, 0.0)

    assert all(torch.equal(tensor, before[name]) for name, tensor in parts.model.named_parameters())
    assert (tmp_path / "nonfinite" / "iteration-000000.pt").is_file()


def test_a_state_file_is_no_replay(tmp_path):
    save_state(tmp_path / "state.pt", {"kind": "run"})

    with pytest.raises(CheckpointError, match="expected a saved batch"):
        read_replay(tmp_path / "state.pt")


def test_prepared_batches_need_no_sync_for_the_check(tiny_recipe, tmp_path):
    parts = assemble(tiny_recipe(), ranks=Ranks(), device=torch.device("cpu"), folder=tmp_path, listener=Listener())
    batch = next(iter(parts.train))

    ready = prepare(batch, parts.recipe.criterion, parts.model)

    assert ready.targets.candidates is not None
    assert batch.targets.candidates is None
