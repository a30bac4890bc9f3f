# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Whole small runs: what a run folder holds, what the listener hears, how a run ends."""

import csv
import json

import cv2
import pytest
import torch

from boxwright.config import from_yaml, override
from boxwright.engine.checkpoint import load_state
from boxwright.engine.logs import Listener
from boxwright.engine.recipe import Recipe
from boxwright.engine.runfolder import free_folder
from boxwright.engine.trainer import Trainer
from boxwright.errors import ConfigError, DataError
from boxwright.models.weights import load_weights, read_metadata, read_state


class Recorder(Listener):
    def __init__(self):
        self.stages, self.messages, self.rows, self.steps, self.open = [], [], [], [], 0

    def stage(self, name, total):
        assert self.open == 0
        self.open += 1
        self.stages.append((name, total))

    def advance(self, done, values):
        self.steps.append((self.stages[-1][0], done, dict(values)))

    def end_stage(self):
        self.open -= 1

    def message(self, text, severity="info"):
        self.messages.append((severity, text))

    def metrics(self, row):
        self.rows.append(dict(row))


@pytest.fixture(scope="module")
def run(tiny_recipe, tmp_path_factory):
    """One finished run of two epochs: (result, recorder, recipe)."""
    recorder, recipe = Recorder(), tiny_recipe("evaluation.plots=true")
    out = tmp_path_factory.mktemp("runs") / "first"
    return Trainer(recipe, out, listener=recorder).fit(), recorder, recipe


def test_run_folder_is_complete(run):
    folder = run[0].folder
    expected = {
        "recipe.yaml", "metrics.csv", "state.pt", "environment.txt", "weights", "results.png", "train_batch.png",
        "predictions.png", "pr_curve.png", "confusion_matrix.png",
    }  # fmt: skip

    found = {path.name for path in folder.iterdir()}

    assert expected <= found
    assert {path.name for path in (folder / "weights").iterdir()} == {"last.safetensors", "best.safetensors"}
    for picture in folder.glob("*.png"):
        image = cv2.imread(str(picture))
        assert image is not None
        assert image.std() > 5  # not blank


def test_recipe_in_the_folder_is_the_recipe(run):
    result, _, recipe = run

    assert from_yaml(Recipe, (result.folder / "recipe.yaml").read_text()) == recipe


def test_metrics_table_has_losses_metrics_rate_and_speed_of_every_epoch(run):
    result, recorder, _ = run
    with (result.folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))

    assert [row["epoch"] for row in rows] == ["1", "2"]
    for name in (
        "train/main/box",
        "train/main/cls",
        "train/main/dfl",
        "val/main/box",
        "val/box/ap50_95",
        "lr",
        "images/s",
    ):
        assert float(rows[0][name]) == pytest.approx(recorder.rows[0][name], rel=1e-4)
    parts = sum(float(rows[1][f"train/main/{name}"]) for name in ("box", "cls", "dfl"))
    assert float(rows[1]["train/total"]) == pytest.approx(parts, rel=1e-4)


def test_the_warning_of_few_steps_counts_the_steps_that_were_taken(run):
    result, recorder, _ = run
    taken = load_state(result.folder / "state.pt")["ema"]["updates"]
    (warning,) = [text for severity, text in recorder.messages if "optimizer steps" in text and severity == "warning"]
    assert warning.startswith(f"this run takes only {taken} optimizer steps (2 epochs of 20 images, 16 images a step)")


def test_losses_fall(tiny_recipe, tmp_path):
    recorder = Recorder()
    recipe = tiny_recipe(
        "train.epochs=20", "train.val_every=20", "train.lr0=0.01", "train.nominal_batch=8", "augment.mosaic=0.0"
    )
    Trainer(recipe, tmp_path / "run", listener=recorder).fit()

    first, last = recorder.rows[0], recorder.rows[-1]
    assert last["train/main/cls"] < 0.9 * first["train/main/cls"]
    assert last["train/main/dfl"] < 0.95 * first["train/main/dfl"]
    assert [("val/fitness" in row) for row in recorder.rows] == [False] * 19 + [True]


def test_listener_hears_every_stage_choice_and_number(run):
    result, recorder, _ = run

    assert recorder.open == 0
    names = [name for name, _ in recorder.stages]
    assert names[:6] == [
        "reading train labels", "reading val labels", "train 1/2", "validate 1/2", "train 2/2", "validate 2/2",
    ]  # fmt: skip
    assert ("train 1/2", 3) in recorder.stages
    _, done, values = [step for step in recorder.steps if step[0] == "train 2/2"][-1]
    assert done == 3
    assert set(values) == {"main/box", "main/cls", "main/dfl", "lr", "images/s", "eta_s"}
    assert values["eta_s"] == 0
    said = "\n".join(text for _, text in recorder.messages)
    assert "optimizer auto: 4 nominal iterations" in said
    assert "warm-up: 3 of 6 iterations (capped at half of the run)" in said
    assert "precision fp32 (as set)" in said
    assert result.finished


def test_weights_are_the_average_and_load_alone(run, scenes):
    result = run[0]
    metadata = read_metadata(result.folder / "weights" / "last.safetensors")
    weights = read_state(result.folder / "weights" / "last.safetensors")
    state = torch.load(result.folder / "state.pt", weights_only=True)

    assert json.loads(metadata["names"]) == ["circle", "square", "triangle", "cross"]
    assert json.loads(metadata["class_ids"]) == [0, 1, 2, 3]
    assert metadata["epoch"] == "2"
    rebuilt = from_yaml(Recipe, metadata["recipe"]).model.build()
    assert load_weights(rebuilt, result.folder / "weights" / "last.safetensors").complete
    assert all(torch.equal(tensor, state["ema"][name]) for name, tensor in weights.items())
    assert not torch.equal(state["ema"]["head.class_branches.0.2.bias"], state["model"]["head.class_branches.0.2.bias"])


def test_result_holds_the_metrics_of_the_best_epoch(run):
    result, recorder, _ = run
    best = max(recorder.rows, key=lambda row: (row["val/fitness"], row["epoch"]))

    assert result.best_epoch == best["epoch"]
    assert result.metrics["box/ap50_95"] == pytest.approx(best["val/box/ap50_95"])


def test_a_folder_with_a_run_is_never_overwritten(run, tiny_recipe):
    before = (run[0].folder / "state.pt").read_bytes()

    with pytest.raises(ConfigError, match="holds a run already"):
        Trainer(tiny_recipe(), run[0].folder).fit()
    assert (run[0].folder / "state.pt").read_bytes() == before


def test_free_folder_counts_up(tmp_path):
    assert free_folder(tmp_path / "train") == tmp_path / "train"
    (tmp_path / "train").mkdir()
    assert free_folder(tmp_path / "train") == tmp_path / "train"  # empty
    (tmp_path / "train" / "x").touch()
    (tmp_path / "train-2").touch()
    assert free_folder(tmp_path / "train") == tmp_path / "train-3"


def test_early_stop_ends_the_run_and_says_so(tiny_recipe, tmp_path, monkeypatch):
    # Fitness as told, best at epoch 2: with patience 3 the run ends after epoch 5.
    from boxwright.evaluation.evaluator import EvaluationResult

    told = iter([0.1, 0.5, 0.2, 0.5, 0.4, 0.9])
    monkeypatch.setattr(EvaluationResult, "fitness", property(lambda self: next(told), lambda self, value: None))
    recorder = Recorder()

    result = Trainer(tiny_recipe("train.epochs=30", "train.patience=3"), tmp_path / "run", listener=recorder).fit()

    assert len(recorder.rows) == 5
    assert result.best_epoch == 2
    assert result.finished
    assert ("info", "stopped early: no better fitness in 3 epochs; best epoch 2") in recorder.messages


def test_freeze_keeps_weights_and_with_bn_eval_statistics(tiny_recipe, tmp_path):
    recipe = tiny_recipe("train.freeze=2", "train.frozen_bn_eval=true", "train.epochs=1")
    Trainer(recipe, tmp_path / "run").fit()
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)["model"]

    from boxwright.engine.precision import seed_everything

    seed_everything(recipe.train.seed, 0, 0)
    fresh = recipe.model.build().state_dict()
    frozen = [name for name in state if name.startswith(("backbone.layers.0.", "backbone.layers.1."))]
    assert len(frozen) == 12
    assert all(torch.equal(state[name], fresh[name]) for name in frozen)
    free = next(name for name in state if name.startswith("backbone.layers.2.") and name.endswith("conv.weight"))
    assert not torch.equal(state[free], fresh[free])


def test_initial_weights_are_taken(run, tiny_recipe, tmp_path):
    recorder = Recorder()
    recipe = tiny_recipe("train.epochs=1", "train.optimizer=sgd", "train.lr0=0.0", "train.warmup_bias_lr=0.0")
    source = run[0].folder / "weights" / "best.safetensors"

    Trainer(recipe, tmp_path / "run", listener=recorder, weights=source).fit()

    trained = torch.load(tmp_path / "run" / "state.pt", weights_only=True)["model"]
    assert torch.equal(trained["backbone.layers.0.conv.weight"], read_state(source)["backbone.layers.0.conv.weight"])
    assert any("tensors loaded" in text for _, text in recorder.messages)


def test_batch_larger_than_the_dataset_is_clamped_and_said(tiny_recipe, tmp_path):
    recorder = Recorder()
    Trainer(tiny_recipe("train.batch=64", "train.epochs=1"), tmp_path / "run", listener=recorder).fit()

    assert ("warning", "train.batch: 64 is more than the 20 training images; using 20") in recorder.messages
    assert ("train 1/1", 1) in recorder.stages


def test_wrong_number_of_classes_is_refused_and_leaves_no_folder(tiny_recipe, tmp_path):
    recipe = override(tiny_recipe(), ["model.head.num_classes=7"])

    with pytest.raises(ConfigError, match=r"model.head.num_classes: expected 4, .* got 7"):
        Trainer(recipe, tmp_path / "run").fit()
    assert not (tmp_path / "run").exists()


def test_missing_data_is_an_error_of_the_data(tiny_recipe, tmp_path):
    with pytest.raises(DataError):
        Trainer(tiny_recipe(f"data.source={tmp_path / 'nowhere'}"), tmp_path / "run").fit()


def test_multi_scale_and_bf16_run(tiny_recipe, tmp_path):
    recipe = tiny_recipe("train.multi_scale=true", "train.precision=bf16", "train.epochs=1", "train.schedule=cosine")

    result = Trainer(recipe, tmp_path / "run").fit()

    assert result.metrics["box/ap50"] >= 0
    assert "precision: bf16" in (tmp_path / "run" / "environment.txt").read_text()


def test_numbered_checkpoints_on_request(tiny_recipe, tmp_path):
    Trainer(tiny_recipe("train.save_every=2", "train.epochs=3"), tmp_path / "run").fit()

    names = sorted(path.name for path in (tmp_path / "run" / "weights").iterdir())
    assert names == ["best.safetensors", "epoch-0002.safetensors", "last.safetensors"]


def test_epochs_that_were_not_looked_at_lose_no_patience(tiny_recipe, tmp_path):
    recipe = tiny_recipe("train.epochs=4", "train.patience=2", "train.val_every=100")

    result = Trainer(recipe, tmp_path / "run").fit()

    assert result.best_epoch == 4
    assert (tmp_path / "run" / "weights" / "best.safetensors").is_file()


def test_somebody_may_look_on_after_every_epoch(tiny_recipe, tmp_path):
    seen = []

    Trainer(tiny_recipe("train.epochs=2"), tmp_path / "run", look_on=seen.append).fit()

    assert [view.epoch for view in seen] == [1, 2]
    assert seen[0].folder == tmp_path / "run"
    assert seen[0].records.split == "val"
