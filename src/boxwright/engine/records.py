# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""What a run remembers from epoch to epoch, and how it is put on disk and taken back."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from boxwright.config import to_dict, to_yaml
from boxwright.datasets.sample import DatasetHeader
from boxwright.engine.checkpoint import save_state, write_text_atomic
from boxwright.engine.logs import metrics_table
from boxwright.engine.recipe import Recipe
from boxwright.engine.runfolder import RunFolder
from boxwright.engine.step import Stepper
from boxwright.errors import CheckpointError
from boxwright.models.weights import save_weights


@dataclass(slots=True)
class History:
    """How far a run is and how good it was."""

    epoch: int = 0  # finished epochs
    best_fitness: float = 0.0
    best_epoch: int = 0  # counted from 1; 0 before the first
    stopped_early: bool = False
    rows: list[dict[str, float]] = field(default_factory=list)  # of metrics.csv

    def add(self, row: dict[str, float], fitness: float | None) -> bool:
        """Notes a finished epoch and says whether it is the best so far.

        An epoch that was not validated (None) never is. While the best fitness is 0, the last
        validated epoch is the best.
        """
        self.epoch += 1
        self.rows.append(row)
        if fitness is None or not (fitness > self.best_fitness or self.best_fitness == 0):
            return False
        self.best_epoch = self.epoch
        self.best_fitness = fitness
        return True

    def out_of_patience(self, patience: int) -> bool:
        """Whether `patience` epochs passed without a better fitness; 0 never loses patience."""
        return patience > 0 and self.epoch - self.best_epoch >= patience


def save_epoch(
    folder: RunFolder,
    recipe: Recipe,
    header: DatasetHeader,
    stepper: Stepper,
    history: History,
    leftovers: Mapping[str, Tensor],
    *,
    best: bool,
) -> None:
    """Writes the weights, the table and, last, the state.

    Resume reads the state only. Killed in between, the other files are one epoch ahead of it and are written again,
    equal, by the resumed run.
    """
    metadata = weights_metadata(recipe, header, history)
    average = stepper.ema.module.state_dict()
    if best:
        save_weights(folder.best, average, metadata)
    save_weights(folder.last, average, metadata)
    every = recipe.train.save_every
    if every and history.epoch % every == 0:
        save_weights(folder.root / "weights" / f"epoch-{history.epoch:04d}.safetensors", average, metadata)
    write_text_atomic(folder.metrics, metrics_table(history.rows))
    save_state(folder.state, state_of(recipe, stepper, history, leftovers))


def weights_metadata(recipe: Recipe, header: DatasetHeader, history: History) -> dict[str, str]:
    """Text that travels inside a weights file: enough for `boxwright.load`."""
    return {
        "recipe": to_yaml(recipe),
        "names": json.dumps(list(header.names)),
        "class_ids": json.dumps(list(header.class_ids)),
        "epoch": str(history.epoch),
        "metrics": json.dumps(history.rows[-1] if history.rows else {}),
    }


def state_of(recipe: Recipe, stepper: Stepper, history: History, leftovers: Mapping[str, Tensor]) -> dict[str, Any]:
    """Everything the next epoch depends on, as tensors and plain values.

    No generator states: every epoch seeds its generators from (seed, epoch, rank).
    """
    criterion = getattr(stepper.criterion, "state_dict", dict)
    return {
        "kind": "run",
        "recipe": to_dict(recipe),
        "precision": stepper.settings.precision,
        "world": stepper.settings.ranks.world,
        "epoch": history.epoch,
        "best_fitness": history.best_fitness,
        "best_epoch": history.best_epoch,
        "stopped_early": history.stopped_early,
        "rows": history.rows,
        "last_step": stepper.last_step,
        "model": stepper.model.state_dict(),
        "ema": stepper.ema.state_dict(),
        "optimizer": stepper.optimizer.state_dict(),
        "scaler": stepper.scaler.state_dict(),
        "gradients": dict(leftovers),
        "criterion": criterion(),
    }


def restore(state: Mapping[str, Any], stepper: Stepper) -> History:
    """Puts a saved state into the parts of the same recipe.

    Raises:
        CheckpointError: the state does not fit them.
    """
    try:
        stepper.model.load_state_dict(state["model"])
        stepper.ema.load_state_dict(state["ema"])
        stepper.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"] and stepper.scaler.is_enabled():
            stepper.scaler.load_state_dict(state["scaler"])
        if state["criterion"]:
            stepper.criterion.load_state_dict(state["criterion"])
        stepper.restore_gradients(state["gradients"])
        stepper.last_step = state["last_step"]
        return History(
            epoch=state["epoch"],
            best_fitness=state["best_fitness"],
            best_epoch=state["best_epoch"],
            stopped_early=state["stopped_early"],
            rows=state["rows"],
        )
    except (KeyError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"the saved state does not fit this recipe: {str(error).splitlines()[0]}") from error
