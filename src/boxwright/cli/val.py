# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""`boxwright val`: how good are these weights on a split."""

from pathlib import Path
from typing import Annotated

import typer

from boxwright.cli.options import Batch, Conf, Data, Device, Imgsz, Iou, MaxDet, Settings, SplitName, Weights, Workers


def val(
    weights: Weights = None,
    data: Data = None,
    split: Annotated[SplitName, typer.Option("--split", help="Split to measure on.")] = SplitName.VAL,
    imgsz: Imgsz = None,
    batch: Batch = None,
    device: Device = None,
    workers: Workers = None,
    conf: Conf = None,
    iou: Iou = None,
    max_det: MaxDet = None,
    plots: Annotated[
        Path | None, typer.Option("--plots", metavar="DIR", help="Draw curves and confusion matrix here.")
    ] = None,
    settings: Settings = None,
) -> None:
    """Measure weights on a dataset.

    Without --data on the dataset they were trained with.
    """
    from boxwright import api
    from boxwright.cli.console import say, show
    from boxwright.cli.progress import make_listener, values_text
    from boxwright.cli.tables import class_results

    model = api.load(weights or api.newest_weights())
    found = model.validate(
        data,
        split=split.value,
        listener=make_listener(),
        settings=settings,
        imgsz=imgsz,
        batch=batch,
        device=device,
        workers=workers,
        conf=conf,
        iou=iou,
        max_det=max_det,
    )
    show(class_results(found.result, title=f"{split.value}, {model.path}"))
    if found.losses:
        say(f"loss: {values_text(found.losses)}")
    if plots is not None:
        from boxwright.evaluation.plots import save_plots

        save_plots(found.result, plots)
        say(f"plots: {plots}")
