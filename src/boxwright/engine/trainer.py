# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Trainer: the loop over epochs. One step is in `step.py`, what is written between epochs in `records.py`."""

import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from boxwright.config import replace, to_dict, to_yaml
from boxwright.datasets.sample import DatasetHeader, Records
from boxwright.engine.assemble import Parts, assemble
from boxwright.engine.checkpoint import load_state, write_atomic, write_text_atomic
from boxwright.engine.distributed import Ranks, announced, broadcast_state, process_group, same_everywhere
from boxwright.engine.kept_pages import keep_pages
from boxwright.engine.logs import Listener, stage
from boxwright.engine.meter import Meter
from boxwright.engine.precision import choose_device, determinism, seed_everything
from boxwright.engine.recipe import Recipe
from boxwright.engine.records import History, restore, save_epoch
from boxwright.engine.run_pictures import predictor_of, save_predictions, save_training_batch
from boxwright.engine.runfolder import (
    RunFolder,
    changed_settings,
    check_resumable,
    environment_text,
    without_class_numbers,
)
from boxwright.engine.training_curves import training_curves
from boxwright.engine.validator import Validation, validate
from boxwright.errors import CheckpointError
from boxwright.evaluation.plots import save_plots
from boxwright.evaluation.result import EvaluationResult
from boxwright.models.network import Network
from boxwright.models.weights import load_weights

_DRAW_EVERY = 60.0  # seconds between two pictures of the curves


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a training ended."""

    folder: Path
    metrics: Mapping[str, float]  # of the best epoch on the validation split: "box/ap50_95", ...; empty without one
    best_epoch: int  # counted from 1
    finished: bool = True  # False when `stop_after` ended it before its last epoch
    evaluation: EvaluationResult | None = field(
        default=None, repr=False
    )  # of the best epoch: per class, curves; None without a validation split


@dataclass(frozen=True, slots=True)
class EpochView:
    """What somebody who looks on after an epoch may see; nothing of it may be changed."""

    epoch: int  # just finished, counted from 1
    model: Network  # the averaged weights
    recipe: Recipe
    header: DatasetHeader
    records: Records  # the validation split, or the training split where there is none
    folder: Path
    device: torch.device


class Trainer:
    """Trains one recipe in one run folder; under torchrun every rank makes one and they act together."""

    def __init__(
        self,
        recipe: Recipe,
        out: Path,
        *,
        listener: Listener | None = None,
        resume: bool | Path = False,
        weights: Path | None = None,
        look_on: Callable[[EpochView], None] | None = None,
    ) -> None:
        """Prepares nothing yet: `fit` does all work.

        Args:
            recipe: the whole run.
            out: the run folder; it must not hold a run already, unless `resume`.
            listener: hears progress; rank 0 only.
            resume: continue the run in `out`, or in the folder given here instead.
            weights: tensors to start from (a safetensors file); what does not fit keeps its fresh values.
            look_on: called after every epoch, on rank 0 only, while the other ranks go on or wait; it must not use
                collectives (see `ops.collective.alone`).
        """
        self.recipe = recipe
        self.out = resume if isinstance(resume, Path) else out
        self.resume = bool(resume)
        self.weights = weights
        self._listener = listener or Listener()
        self._look_on = look_on

    def fit(self, *, stop_after: int | None = None) -> RunResult:
        """Trains to the last epoch (or early stop), then evaluates the best weights.

        Args:
            stop_after: end cleanly after this many epochs of this call, ready to be resumed.

        Raises:
            ConfigError, DataError: the recipe or the data cannot be used, or the folder holds a run already.
            CheckpointError: nothing to resume, or the folder cannot be written.
            TrainingError: the loss is not finite.
            KeyboardInterrupt: after telling the listener how to resume.
        """
        config = self.recipe.train
        device = choose_device(config.device, announced().local_rank)
        if device.type == "cuda":
            torch.cuda.set_device(device)
        elif keep_pages():
            self._listener.message("memory: freed pages are kept for the next step (glibc)")
        with process_group(device.type) as ranks, determinism(device, config.deterministic):
            listener = self._listener if ranks.first else Listener()
            folder = RunFolder(Path(same_everywhere(str(self.out))))
            look_on = self._look_on if ranks.first else None
            run = _TrainingRun(self.recipe, folder, ranks, device, listener, look_on)
            return run.go(self.resume, self.weights, stop_after)


class _TrainingRun:
    """One call of `fit` on one rank."""

    def __init__(
        self,
        recipe: Recipe,
        folder: RunFolder,
        ranks: Ranks,
        device: torch.device,
        listener: Listener,
        look_on: Callable[[EpochView], None] | None = None,
    ) -> None:
        self.recipe = recipe
        self.folder = folder
        self.ranks = ranks
        self.device = device
        self.listener = listener
        self.history = History()
        self.draws = ranks.first and recipe.evaluation.plots
        self.drawn = -math.inf  # when the curves were drawn last
        self.best: Validation | None = None  # of the best epoch, if this call saw it
        self.look_on = look_on

    def go(self, resume: bool, weights: Path | None, stop_after: int | None) -> RunResult:
        state = self._open(resume)
        try:
            parts = self._assemble(weights)
        except BaseException:
            if self.ranks.first and not resume:
                with suppress(OSError):
                    self.folder.root.rmdir()  # only if it is empty: nothing began
            raise
        # With class weights as numbers and fitted anchors: what is written down is what was trained with.
        self.recipe = replace(self.recipe, criterion=parts.recipe.criterion, model=parts.recipe.model)
        if state is not None:
            check_resumable(changed_settings(state["recipe"], to_dict(self.recipe)))
            self.history = restore(state, parts.stepper)
        elif self.ranks.first:
            self._describe(parts)
        try:
            last = self._epochs(parts, stop_after)
            parts.stepper.close()
        except KeyboardInterrupt:
            self._say_how_to_resume()
            raise
        if last < self.recipe.train.epochs and not self.history.stopped_early:
            return RunResult(self.folder.root, self._best_row(), self.history.best_epoch, finished=False)
        return self._finish(parts)

    def _open(self, resume: bool) -> dict[str, Any] | None:
        """The state to continue from, None for a fresh start."""
        if not resume:
            if self.ranks.first:
                self.folder.create()
            return None
        if not self.folder.state.exists():
            if not self.folder.recipe.exists():
                raise CheckpointError(f"{self.folder.root}: holds no run to resume")
            self.listener.message(
                f"{self.folder.root}: no epoch was finished; starting again from the first", "warning"
            )
            return None
        state = load_state(self.folder.state)
        before, now = (without_class_numbers(recipe) for recipe in (state["recipe"], to_dict(self.recipe)))
        for line in check_resumable(changed_settings(before, now)):
            self.listener.message(f"resume: {line}", "warning")
        if state["world"] != self.ranks.world:
            self.listener.message(
                f"resume: was {state['world']} ranks, now {self.ranks.world}; sums round differently", "warning"
            )
        self.listener.message(f"resuming {self.folder.root} after epoch {state['epoch']}")
        return state

    def _assemble(self, weights: Path | None) -> Parts:
        seed_everything(self.recipe.train.seed, 0, 0)
        return assemble(
            self.recipe,
            ranks=self.ranks,
            device=self.device,
            folder=self.folder.root,
            listener=self.listener,
            weights=weights,
        )

    def _describe(self, parts: Parts) -> None:
        (self.folder.root / "weights").mkdir(exist_ok=True)
        facts = {"precision": parts.precision, "ranks": self.ranks.world, "workers per rank": parts.workers}
        write_text_atomic(self.folder.environment, environment_text(self.device, facts))
        write_text_atomic(self.folder.recipe, to_yaml(self.recipe))

    def _epochs(self, parts: Parts, stop_after: int | None) -> int:
        """Trains until the end, early stop or `stop_after`; returns the number of finished epochs."""
        config, history = self.recipe.train, self.history
        until = config.epochs if stop_after is None else min(config.epochs, history.epoch + stop_after)
        while history.epoch < until and not history.stopped_early:
            epoch = history.epoch
            seed_everything(config.seed, epoch + 1, self.ranks.rank)
            row = self._train_epoch(parts, epoch)
            checked = parts.val is None or (epoch + 1) % config.val_every == 0 or epoch + 1 == config.epochs
            validation = self._validate(parts, f"validate {epoch + 1}/{config.epochs}") if checked else None
            self._close_epoch(parts, row, validation, checked=checked)
            if self.look_on is not None:
                self.look_on(self._view(parts))
        return history.epoch

    def _view(self, parts: Parts) -> EpochView:
        return EpochView(
            epoch=self.history.epoch,
            model=parts.stepper.ema.module,
            recipe=self.recipe,
            header=parts.header,
            records=parts.train_records if parts.val_records is None else parts.val_records,
            folder=self.folder.root,
            device=self.device,
        )

    def _train_epoch(self, parts: Parts, epoch: int) -> dict[str, float]:
        config, loader, stepper = self.recipe.train, parts.train, parts.stepper
        loader.set_epoch(epoch)
        parts.model.train()
        progress = epoch / max(config.epochs - 1, 1)
        meter, batches = Meter(self.ranks.world), len(loader)
        with stage(self.listener, f"train {epoch + 1}/{config.epochs}", batches):
            for index, batch in enumerate(loader):
                if epoch == 0 and index == 0 and self.draws:
                    names, keypoints = parts.header.names, parts.header.keypoints
                    save_training_batch(self.folder.root / "train_batch.png", batch, names, keypoints)
                breakdown = stepper.run(batch, epoch * batches + index, epoch + 1, progress)
                meter.add(breakdown, len(batch.paths))
                if self.ranks.first and meter.due(last=index + 1 == batches):
                    left = (config.epochs - epoch) * batches - index - 1
                    pace = {
                        "lr": stepper.optimizer.param_groups[1]["lr"],
                        "images/s": meter.images_per_second,
                        "eta_s": left * meter.seconds / (index + 1),
                    }
                    self.listener.advance(index + 1, meter.shown() | pace)
        means = meter.means()
        return {
            "epoch": float(epoch + 1),
            **{f"train/{name}": value for name, value in means.items()},
            "train/total": sum(means.values(), 0.0),
            "lr": stepper.optimizer.param_groups[1]["lr"],
            "images/s": meter.images_per_second,
            "seconds": meter.seconds,
        }

    def _validate(self, parts: Parts, name: str) -> Validation | None:
        if parts.val is None:
            return None
        average = parts.stepper.ema.module
        broadcast_state(average)  # batch statistics are each rank's own until here
        return validate(
            average,
            parts.val,
            vocabulary=self.recipe.vocabulary(parts.header.names, parts.header.class_ids),
            config=self.recipe.evaluation,
            criterion=self.recipe.criterion,
            device=self.device,
            precision=parts.precision,
            listener=self.listener,
            stage_name=name,
        )

    def _close_epoch(
        self, parts: Parts, row: dict[str, float], validation: Validation | None, *, checked: bool
    ) -> None:
        """Notes the epoch, saves it, and decides about an early stop; equal on every rank."""
        history, fitness = self.history, None
        if validation is not None:
            fitness = validation.result.fitness
            row |= {f"val/{name}": value for name, value in validation.losses.items()}
            row |= {"val/total": sum(validation.losses.values(), 0.0)}
            row |= {f"val/{name}": value for name, value in validation.result.metrics.items()} | {
                "val/fitness": fitness
            }
        elif checked:
            fitness = 0.0  # no validation split: the last epoch is the best
        better = history.add(row, fitness)
        self.best = validation if better else self.best
        # Only an epoch that was looked at can lose patience.
        history.stopped_early = checked and history.out_of_patience(self.recipe.train.patience)
        leftovers = parts.stepper.leftover_gradients()
        if self.ranks.first:
            save_epoch(self.folder, self.recipe, parts.header, parts.stepper, history, leftovers, best=better)
            if self.draws and time.monotonic() - self.drawn > _DRAW_EVERY:
                self._draw_curves()
        self.listener.metrics(row)
        if history.stopped_early:
            patience = self.recipe.train.patience
            self.listener.message(
                f"stopped early: no better fitness in {patience} epochs; best epoch {history.best_epoch}"
            )

    def _finish(self, parts: Parts) -> RunResult:
        """Evaluates the best weights once more, with pictures."""
        if self.draws:
            self._draw_curves()
        if parts.val is None:
            return RunResult(self.folder.root, {}, self.history.best_epoch)
        average = parts.stepper.ema.module
        if self.ranks.first:
            load_weights(average, self.folder.best)
        if self.best is None:
            self.best = self._validate(parts, "validate best")
        assert self.best is not None
        if self.draws:
            save_plots(self.best.result, self.folder.root)
            assert parts.val_records is not None
            vocabulary = self.recipe.vocabulary(parts.header.names, parts.header.class_ids)
            predictor = predictor_of(average, vocabulary, self.recipe.data, self.device)
            save_predictions(self.folder.root / "predictions.png", predictor, parts.val_records)
        best = self.best.result
        return RunResult(self.folder.root, best.metrics, self.history.best_epoch, evaluation=best)

    def _draw_curves(self) -> None:
        write_atomic(self.folder.root / "results.png", lambda file: file.write(training_curves(self.history.rows)))
        self.drawn = time.monotonic()

    def _best_row(self) -> dict[str, float]:
        row = self.history.rows[self.history.best_epoch - 1] if self.history.best_epoch else {}
        return {name.removeprefix("val/"): value for name, value in row.items() if name.startswith("val/")}

    def _say_how_to_resume(self) -> None:
        done = self.history.epoch
        saved = f"epochs 1 to {done} are saved" if done else "no epoch was finished"
        self.listener.message(
            f"interrupted in epoch {done + 1}; {saved}. "
            f"Continue from there with: boxwright train --resume {self.folder.root}",
            "warning",
        )
