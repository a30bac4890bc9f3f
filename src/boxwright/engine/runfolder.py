# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The folder of a run: what stands where, which name is free, and what a resumed run may change."""

import importlib.metadata
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from boxwright.errors import CheckpointError, ConfigError
from boxwright.version import __version__

# Settings that a resumed run may change: they say how fast or how long, not what is learnt from which data.
RESUMABLE = (
    "train.epochs",
    "train.patience",
    "train.workers",
    "train.device",
    "train.val_every",
    "train.save_every",
    "data.cache",
    "data.cache_limit_gb",
    "evaluation",
)
_PACKAGES = ("torch", "numpy", "scipy", "opencv-python-headless", "pydantic", "safetensors", "faster-coco-eval")


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Names of the files of a run."""

    root: Path

    @property
    def recipe(self) -> Path:
        """The whole typed config."""
        return self.root / "recipe.yaml"

    @property
    def state(self) -> Path:
        """All that resume needs."""
        return self.root / "state.pt"

    @property
    def metrics(self) -> Path:
        """One row per epoch."""
        return self.root / "metrics.csv"

    @property
    def environment(self) -> Path:
        """Versions, device, threads."""
        return self.root / "environment.txt"

    @property
    def last(self) -> Path:
        """Averaged weights of the last finished epoch."""
        return self.root / "weights" / "last.safetensors"

    @property
    def best(self) -> Path:
        """Averaged weights of the epoch with the best fitness."""
        return self.root / "weights" / "best.safetensors"

    @property
    def holds_run(self) -> bool:
        """Whether a run began here, finished or not."""
        return self.recipe.exists() or self.state.exists() or (self.root / "weights").exists()

    def create(self) -> None:
        """Makes the folder for a new run.

        Raises:
            ConfigError: it holds a run already.
            CheckpointError: it cannot be made or written to.
        """
        if self.holds_run:
            raise ConfigError(
                f"{self.root}: holds a run already and is never overwritten; resume it, or name another folder"
            )
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(f"{self.root}: the run folder cannot be made: {error.strerror or error}") from error


def free_folder(base: Path) -> Path:
    """`base`, or the first of base-2, base-3, ... that does not exist or is an empty folder."""
    number, candidate = 1, base
    while candidate.exists() and not (candidate.is_dir() and not any(candidate.iterdir())):
        number += 1
        candidate = base.with_name(f"{base.name}-{number}")
    return candidate


def changed_settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Dotted path to (old, new) of every value that differs between two recipes written as plain dicts."""
    old, new = _flat(before), _flat(now)
    missing = "(not set)"
    paths = dict.fromkeys([*old, *new])
    return {
        path: (old.get(path, missing), new.get(path, missing))
        for path in paths
        if old.get(path, missing) != new.get(path, missing)
    }


def without_class_numbers(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe written as plain dict, without the class weights that a training works out when it starts."""
    criterion = recipe["criterion"]
    if criterion.get("class_weights", {"kind": "none"})["kind"] == "none":
        return dict(recipe)
    rules = {
        role: rule
        | {
            "terms": {
                name: weighted | {"term": weighted["term"] | {"class_weights": None, "weight_mode": None}}
                for name, weighted in rule["terms"].items()
            }
        }
        for role, rule in criterion["rules"].items()
    }
    return {**recipe, "criterion": criterion | {"rules": rules}}


def check_resumable(changes: Mapping[str, tuple[Any, Any]]) -> list[str]:
    """One line for each allowed change; paths as in RESUMABLE.

    Raises:
        ConfigError: a setting changed that would make the rest of the run another run.
    """
    lines = {path: f"{path}: was {old!r}, now {new!r}" for path, (old, new) in changes.items()}
    refused = [line for path, line in lines.items() if not path.startswith(RESUMABLE)]
    if refused:
        allowed = ", ".join(RESUMABLE)
        raise ConfigError(
            "a resumed run keeps its recipe, but these settings differ:\n"
            + "\n".join(refused)
            + f"\nresume without them (only {allowed} may change), or start a new run"
        )
    return list(lines.values())


def environment_text(device: torch.device, facts: Mapping[str, object]) -> str:
    """Versions and hardware of this process, one fact a line, and the resolved settings of the run."""
    hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    rows: dict[str, object] = {
        "boxwright": __version__,
        "python": sys.version.split()[0],
        "system": platform.platform(),
        **{name: _version(name) for name in _PACKAGES},
        "device": f"{device} ({hardware})",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        **facts,
    }
    return "".join(f"{name}: {value}\n" for name, value in rows.items())


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _flat(tree: object, prefix: str = "") -> dict[str, Any]:
    if isinstance(tree, Mapping) and tree:
        return {
            path: value
            for key, item in tree.items()
            for path, value in _flat(item, f"{prefix}.{key}" if prefix else str(key)).items()
        }
    if isinstance(tree, list) and tree:
        return {path: value for i, item in enumerate(tree) for path, value in _flat(item, f"{prefix}.{i}").items()}
    return {prefix: tree}
