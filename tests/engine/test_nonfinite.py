# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""A loss or gradient that is not finite: where it is found, what is saved, what stays."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from boxwright.engine.assemble import assemble
from boxwright.engine.checkpoint import save_state
from boxwright.engine.distributed import Ranks
from boxwright.engine.logs import Listener
from boxwright.engine.nonfinite import read_replay
from boxwright.engine.step import prepare, to_network
from boxwright.engine.trainer import Trainer
from boxwright.errors import CheckpointError, TrainingError
from boxwright.faults import faults_of
from boxwright.inspector.findings import findings_of
from boxwright.inspector.probe import inspect
from boxwright.losses.terms.box import BoxOverlap


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
    assert "main/cls" in [fault.name for fault in faults_of(recipe.criterion(outputs, replay.targets))]


class Spoilt(torch.nn.Module):
    """A network that spoils one raw output of one candidate of an image."""

    def __init__(self, network, image, field):
        super().__init__()
        self.network, self.image, self.field = network, image, field

    def forward(self, images, targets=None):
        outputs = self.network(images, targets)
        final = outputs.final
        boxes = targets.boxes[self.image, 0]
        centre = (boxes[:2] + boxes[2:]) / 2
        near = (final.cells.points - centre).norm(dim=1).argmin()
        raw = getattr(final, self.field).clone()
        raw[self.image, near] = torch.nan
        return replace(outputs, final=replace(final, **{self.field: raw}))


def stepper_of(tiny_recipe, folder):
    return assemble(tiny_recipe(), ranks=Ranks(), device=torch.device("cpu"), folder=folder, listener=Listener())


@pytest.mark.parametrize(("field", "term"), [("logits", "main/cls"), ("box_raw", "main/box")])
def test_a_spoilt_output_names_role_term_image_and_object(tiny_recipe, tmp_path, field, term, monkeypatch):
    parts = stepper_of(tiny_recipe, tmp_path)
    batch = next(iter(parts.train))
    image = int(batch.targets.valid.any(dim=1).nonzero()[-1])
    stepper = parts.stepper
    stepper._network = Spoilt(stepper.model, image, field)
    if field == "box_raw":  # an assigner takes no candidate whose overlap is NaN: here every pair is told beforehand
        spoil_pairs(monkeypatch, image)

    with pytest.raises(TrainingError) as caught:
        stepper.run(batch, 0, 1, 0.0)

    message = str(caught.value)
    assert f"{term}: " in message
    assert f"nan in image {image}, " in message
    assert f"{batch.paths[image]} (image {image})" in message
    assert re.search(rf"nan in image {image}, (object \d+ \(class \d+ at \(.*?\)\)|no object), candidate \d+", message)
    # The inspector says the same of the same batch.
    ready = prepare(batch, stepper.criterion, stepper.model)
    with torch.no_grad():
        outputs = stepper._network(to_network(ready.images, torch.device("cpu"), channels_last=True), ready.targets)
    told = [
        f.message for f in findings_of(inspect(outputs, ready.targets, stepper.criterion)) if f.code == "not_finite"
    ]
    assert told
    assert all(line in message for line in told)


def spoil_pairs(monkeypatch, image):
    """The box term gives NaN for the first pair of an image, as an overflowing box would."""
    original = BoxOverlap.__call__

    def spoilt(self, preds, targets, pairs):
        values = original(self, preds, targets, pairs)
        first = (pairs.valid & (pairs.image == image)).nonzero()[:1, 0]
        return values.index_fill(0, first, torch.nan)

    monkeypatch.setattr(BoxOverlap, "__call__", spoilt)


def test_a_box_that_is_not_finite_names_its_image_and_object(tiny_recipe, tmp_path):
    parts = stepper_of(tiny_recipe, tmp_path)
    batch = next(iter(parts.train))
    image, slot = batch.targets.valid.nonzero()[-1].tolist()
    boxes = batch.targets.boxes.clone()
    boxes[image, slot, 2] = torch.nan
    spoilt = replace(batch, targets=replace(batch.targets, boxes=boxes))

    with pytest.raises(TrainingError) as caught:
        parts.stepper.run(spoilt, 7, 2, 0.0)

    message = str(caught.value)
    assert message.startswith("epoch 2, iteration 7: labels cannot be used: Targets.boxes: expected finite pixels")
    assert f"at image {image}, slot {slot}" in message
    assert f"Images: {batch.paths[image]} (image {image})" in message


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
