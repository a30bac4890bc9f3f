# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""What happens when a loss or a gradient is not finite: find where, save what is needed to see it again, stop."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from boxwright.data.collate import Batch
from boxwright.engine.checkpoint import load_state, save_state
from boxwright.errors import CheckpointError
from boxwright.structures import Assignment, ImageTargets, LossBreakdown, Targets

_MOST = 5  # images or parameters named in a message


@dataclass(frozen=True, slots=True)
class Visit:
    """One batch of the accumulation in flight, kept until its optimizer step is known to be finite."""

    iteration: int
    batch: Batch
    breakdown: LossBreakdown
    total: Tensor


@dataclass(frozen=True, slots=True)
class Finding:
    """Where a loss stopped being finite."""

    terms: tuple[str, ...]  # names of the loss items, "main/box"
    images: tuple[int, ...]  # positions in the batch; empty where the term does not tell
    entry: str  # the first bad contribution, in words


def find(breakdown: LossBreakdown) -> Finding:
    """Which items of the loss are not finite, in which images, and the first bad entry. Syncs."""
    terms: list[str] = []
    images: dict[int, None] = {}
    entry = "every item is finite, their sum is not"
    for item in breakdown.items:
        bad = (~torch.isfinite(item.contributions)).nonzero().tolist()
        if not bad:
            continue
        if not terms:
            value, place = item.contributions[tuple(bad[0])].item(), _place(item.name, bad[0], breakdown)
            entry = f"{item.name}: {len(bad)} of {item.contributions.numel()} contributions, first {value} at {place}"
        terms.append(item.name)
        images.update(dict.fromkeys(_images(item.name, bad, breakdown)))
    return Finding(tuple(terms), tuple(images), entry)


def not_finite_gradients(model: nn.Module) -> list[str]:
    """Names of the parameters whose gradient holds an inf or NaN. Syncs."""
    return [n for n, p in model.named_parameters() if p.grad is not None and not torch.isfinite(p.grad).all().item()]


def explain_loss(visit: Visit, epoch: int, saved: Path) -> str:
    """The message of the error for a loss that is not finite."""
    found = find(visit.breakdown)
    where = _paths(visit.batch, found.images)
    return (
        f"epoch {epoch}, iteration {visit.iteration}: the loss is not finite ({visit.total.item()}); "
        f"term {', '.join(found.terms) or 'none alone'} ({found.entry}); images: {where}. "
        f"{_kept(saved)} Look at these images and their labels, then try a lower train.lr0, a longer "
        "train.warmup_epochs or train.precision=fp32, and resume"
    )


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
    """Every label on the host, by field."""
    kept: dict[str, Any] = {}
    for of in fields(targets):
        value = getattr(targets, of.name)
        if isinstance(value, Tensor):
            kept[of.name] = value.cpu()
        elif isinstance(value, Mapping):
            kept[of.name] = {name: part.cpu() for name, part in value.items()}
    return kept


def _kept(saved: Path) -> str:
    return f"The batch and the weights are in {saved}; nothing saved before is lost."


def _images(name: str, bad: Sequence[Sequence[int]], breakdown: LossBreakdown) -> list[int]:
    if len(bad[0]) > 1:  # (B, A)
        return [place[0] for place in bad]
    pairs = _pairs(name, breakdown)
    return [] if pairs is None else pairs.image[[place[0] for place in bad]].tolist()


def _place(name: str, place: Sequence[int], breakdown: LossBreakdown) -> str:
    if len(place) > 1:
        return f"image {place[0]} of the batch, candidate {place[1]}"
    pairs = _pairs(name, breakdown)
    if not place or pairs is None:
        return "no place"
    image, anchor, target = (int(index[place[0]]) for index in (pairs.image, pairs.anchor, pairs.target))
    return f"image {image} of the batch, candidate {anchor}, object {target}"


def _pairs(name: str, breakdown: LossBreakdown) -> Assignment | None:
    return breakdown.assignments.get(name.rpartition("/")[0])


def _paths(batch: Batch, images: Sequence[int]) -> str:
    chosen = [batch.paths[i] for i in images] if images else list(batch.paths)
    more = f" and {len(chosen) - _MOST} more" if len(chosen) > _MOST else ""
    return ", ".join(chosen[:_MOST]) + more
