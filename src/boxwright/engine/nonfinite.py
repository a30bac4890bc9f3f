# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""What happens when a loss or a gradient is not finite: find where, save what is needed to see it again, stop."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from boxwright.engine.checkpoint import load_state, save_state
from boxwright.errors import CheckpointError, ShapeError
from boxwright.faults import faults_of
from boxwright.loading.collate import Batch
from boxwright.structures import ImageTargets, LossBreakdown, Targets

_MOST = 5  # images or parameters named in a message


@dataclass(frozen=True, slots=True)
class Visit:
    """One batch of the accumulation in flight, kept until its optimizer step is known to be finite."""

    iteration: int
    batch: Batch
    breakdown: LossBreakdown
    total: Tensor


def not_finite_gradients(model: nn.Module) -> list[str]:
    """Names of the parameters whose gradient holds an inf or NaN. Syncs."""
    return [n for n, p in model.named_parameters() if p.grad is not None and not torch.isfinite(p.grad).all().item()]


def explain_loss(visit: Visit, epoch: int, saved: Path) -> str:
    """The message of the error for a loss that is not finite: its terms, images and objects, as the inspector says."""
    faults = faults_of(visit.breakdown, visit.batch.targets)
    images = tuple(dict.fromkeys(image for fault in faults for image in fault.images))
    told = ". ".join(fault.words() for fault in faults) or "every term is finite, their sum is not"
    return (
        f"epoch {epoch}, iteration {visit.iteration}: the loss is not finite ({visit.total.item()}). {told}. "
        f"Images: {_paths(visit.batch, images)}. "
        f"{_kept(saved)} Look at these images and their labels, then try a lower train.lr0, a longer "
        "train.warmup_epochs or train.precision=fp32, and resume"
    )


def explain_labels(batch: Batch, error: ShapeError, iteration: int, epoch: int) -> str:
    """The message of the error for labels that no loss can be computed from."""
    targets, images = batch.targets, ()
    if isinstance(targets, Targets):
        bad = targets.valid & (~torch.isfinite(targets.boxes).all(dim=-1) | (targets.labels < 0))
        images = tuple(bad.any(dim=1).nonzero()[:, 0].tolist())
    return f"epoch {epoch}, iteration {iteration}: labels cannot be used: {error}. Images: {_paths(batch, images)}"


def explain_gradient(visits: Sequence[Visit], names: Sequence[str], epoch: int, saved: Path) -> str:
    """The message of the error for gradients that are not finite although the loss is."""
    more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
    return (
        f"epoch {epoch}, iteration {visits[-1].iteration}: the loss is finite, but not the gradient of "
        f"{', '.join(names[:_MOST])}{more}; images: {'; '.join(_paths(visit.batch, ()) for visit in visits)}. "
        f"{_kept(saved)} Try train.precision=fp32 or a lower train.lr0"
    )


def save_replay(path: Path, visit: Visit, epoch: int, weights: Mapping[str, Tensor]) -> None:
    """Writes the offending batch and the weights that met it, as `read_replay` gives them back."""
    save_state(
        path,
        {
            "kind": "replay",
            "epoch": epoch,
            "iteration": visit.iteration,
            "paths": list(visit.batch.paths),
            "images": visit.batch.images.cpu(),
            "targets": _saved(visit.batch.targets),
            "weights": {name: tensor.detach().cpu() for name, tensor in weights.items()},
        },
    )


@dataclass(frozen=True, slots=True)
class Replay:
    """A saved batch and the weights of that moment (before the step)."""

    epoch: int
    iteration: int
    paths: tuple[str, ...]
    images: Tensor  # uint8 (B, 3, H, W)
    targets: Targets | ImageTargets  # without the layouts that `Criterion.prepare` makes
    weights: Mapping[str, Tensor]


def read_replay(path: Path) -> Replay:
    """Reads what a run that met a non-finite loss left behind.

    Raises:
        CheckpointError: the file is missing, damaged or something else.
    """
    state = load_state(path)
    if state.get("kind") != "replay":
        raise CheckpointError(f"{path}: expected a saved batch, got another state file")
    return Replay(
        epoch=state["epoch"],
        iteration=state["iteration"],
        paths=tuple(state["paths"]),
        images=state["images"],
        targets=(Targets if "boxes" in state["targets"] else ImageTargets)(**state["targets"]),
        weights=state["weights"],
    )


def _saved(targets: Targets | ImageTargets) -> dict[str, Any]:
    """Every label on the host, by field; layouts are left out, as labels and grid make them anew."""
    kept: dict[str, Any] = {}
    for part in fields(targets):
        value = getattr(targets, part.name)
        if isinstance(value, Tensor):
            kept[part.name] = value.cpu()
        elif isinstance(value, Mapping) and part.name != "prepared":
            kept[part.name] = {name: values.cpu() for name, values in value.items()}
    return kept


def _kept(saved: Path) -> str:
    return f"The batch and the weights are in {saved}; nothing saved before is lost."


def _paths(batch: Batch, images: Sequence[int]) -> str:
    chosen = images or range(len(batch.paths))
    more = f" and {len(chosen) - _MOST} more" if len(chosen) > _MOST else ""
    return ", ".join(f"{batch.paths[i]} (image {i})" for i in chosen[:_MOST]) + more
