# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""`boxwright train`: a preset and a dataset in, a run folder out."""

from pathlib import Path
from typing import Annotated

import typer

from boxwright.cli.options import Batch, Data, Device, Imgsz, Preset, Settings, Workers

INSPECTED = 16  # images of a look at a training


def train(
    name: Preset = None,
    data: Data = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, metavar="N", help="Passes over the training images.")
    ] = None,
    imgsz: Imgsz = None,
    batch: Batch = None,
    device: Device = None,
    workers: Workers = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of everything that is drawn.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Run folder; without it a new one under runs/.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option("--weights", metavar="PATH", help="Weights file or run folder to start from.")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option("--resume", metavar="DIR", help="Finish the interrupted run in this folder.")
    ] = None,
    inspect_every: Annotated[
        int, typer.Option("--inspect-every", min=0, metavar="N", help="Inspect some images every N epochs; 0 never.")
    ] = 0,
    settings: Settings = None,
) -> None:
    """Train a model: find objects, their masks, keypoints or angles, or classify images.

    [bold]boxwright train yolov8n --data data.yaml --epochs 100[/]

    The run folder holds the weights, a table of all epochs, pictures and the complete configuration. With several
    processes: [bold]torchrun --nproc-per-node 2 -m boxwright train ...[/]
    """
    from boxwright import api
    from boxwright.cli.console import rank, say, show
    from boxwright.cli.progress import make_listener
    from boxwright.cli.tables import class_results

    listener = make_listener()
    look_on = None
    if inspect_every:
        from boxwright.api.inspect import every
        from boxwright.cli.inspect import write

        look_on = every(inspect_every, INSPECTED, write)
    run = api.train(
        name,
        data=data,
        out=out,
        weights=weights,
        resume=resume,
        listener=listener,
        look_on=look_on,
        settings=settings,
        epochs=epochs,
        imgsz=imgsz,
        batch=batch,
        device=device,
        workers=workers,
        seed=seed,
    )
    if rank() != 0:
        return
    if run.evaluation is not None:
        show(class_results(run.evaluation, title=f"validation, best epoch {run.best_epoch}"))
    say(f"run folder: {run.folder}")
    say(f"best weights: {run.weights}")
