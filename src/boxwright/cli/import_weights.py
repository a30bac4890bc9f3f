# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""`boxwright import`: weights that people already have."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from boxwright.errors import ConfigError

if TYPE_CHECKING:
    from boxwright.foreign.importing import Imported

FEW = 5  # keys named without --all


def import_weights(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="A .pt, .pth or .safetensors file; nothing in it is run.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Weights to write; beside the checkpoint without it.")
    ] = None,
    names: Annotated[
        str | None, typer.Option("--names", metavar="A,B,...", help="Class names, where the file has none.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option("--preset", metavar="NAME", help="The network; found by its tensors without it.")
    ] = None,
    keypoints: Annotated[
        str | None,
        typer.Option("--keypoints", metavar="KxD", help="Of a pose model, where the file does not say: 17x3."),
    ] = None,
    exclusive: Annotated[
        bool, typer.Option("--exclusive", help="Every object has exactly one class (softmax); files do not say.")
    ] = False,
    every: Annotated[bool, typer.Option("--all", help="List every key, not only a few.")] = False,
) -> None:
    """Turn a checkpoint of another code base into boxwright weights.

    YOLOv5, YOLOv8, YOLOv10, YOLO11, YOLO26, RT-DETR; backbones of torchvision. [bold]boxwright import yolov8n.pt[/]
    """
    from boxwright.api.export import import_checkpoint
    from boxwright.cli.console import say

    chosen = None if names is None else [name.strip() for name in names.split(",")]
    done = import_checkpoint(
        checkpoint, out, names=chosen, preset=preset, keypoints=_shape(keypoints), exclusive=exclusive
    )
    for line in report(done, every=every):
        say(line)


def report(done: "Imported", *, every: bool = False) -> list[str]:
    """What became of each key, as lines."""
    place = f" (its '{done.place}')" if done.place else ""
    lines = [
        f"{done.source}{place} is {done.recipe.name}, {done.recipe.data.task}, {len(done.names)} classes",
        f"{len(done.used)} of {done.tensors} tensors used, {len(done.left)} left",
    ]
    most = None if every else FEW
    if every:
        lines += [f"  used {theirs} -> {ours}" for theirs, ours in done.used]
    lines += [f"  left {key}: {why}" for key, why in done.left[:most]]
    if most is not None and len(done.left) > most:
        lines.append(f"  and {len(done.left) - most} more; --all lists them")
    if done.filled:
        lines.append(f"{len(done.filled)} of our tensors are not in the file")
        lines += [f"  filled {key}: {what}" for key, what in done.filled[:most]]
    lines += [f"note: {note}" for note in done.notes]
    return [*lines, f"saved {done.path}"]


def _shape(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    count, _, dims = text.lower().partition("x")
    if not (count.isdigit() and dims in ("2", "3")):
        raise ConfigError(f"keypoints: expected a count and 2 or 3 numbers of each, such as 17x3, got {text}")
    return int(count), int(dims)
