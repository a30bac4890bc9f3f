# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""`boxwright demo`: draw a dataset, train on it, evaluate, predict, show pictures. Needs no download and no GPU."""

import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from boxwright.cli.options import Device
from boxwright.errors import TrainingError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from boxwright.engine.logs import Listener

PRESET = "yolov8n"
BATCH = 8  # also the nominal batch: one optimizer step per small batch, which a short run needs
SEED = 0


class DemoTask(StrEnum):
    """What the demo shows."""

    DETECT = "detect"
    SEGMENT = "segment"
    POSE = "pose"
    OBB = "obb"
    CLASSIFY = "classify"


@dataclass(frozen=True)
class Size:
    """How much is drawn and how long is trained."""

    train: int  # scenes
    val: int  # held-out scenes
    epochs: int
    imgsz: int = 192  # px; small enough for two CPU cores, large enough for shapes of 9 % of the side
    settings: tuple[str, ...] = ()
    promise: tuple[tuple[str, float], ...] = ()  # metrics and the values below which the demo fails


# A recipe is made for hundreds of epochs. For a few minutes: new scenes instead of moved ones (drawing is cheap, and a
# scene shows several objects anyway), half the jitter of colours, a short warm-up, and weights averaged over the last
# hundred steps. The longer a run needs to tell its classes apart, the worse it ends, and with full jitter and a long
# warm-up that moment is early or late by chance (docs/accuracy.md).
SHORT_RUN = (
    "augment.mosaic=0.0",
    "augment.scale=0.0",
    "augment.translate=0.0",
    "augment.hsv_s=0.3",
    "augment.hsv_v=0.2",
    "train.lr0=0.001",
    "train.warmup_epochs=0.1",
    "train.ema_warmup=300",
)
# A larger class gain where shapes are easy to find and hard to tell apart.
HARD_CLASSES = "criterion.rules.main.terms.cls.gain=3"
FULL = {
    DemoTask.DETECT: Size(
        train=4500,
        val=120,
        epochs=3,  # 13 500 images seen
        settings=(*SHORT_RUN, HARD_CLASSES),
        promise=(("box/ap50", 0.9), ("box/ap50_95", 0.7)),
    ),
    DemoTask.SEGMENT: Size(
        train=4000,
        val=120,
        epochs=2,
        settings=(*SHORT_RUN, HARD_CLASSES),
        promise=(("box/ap50", 0.8), ("mask/ap50", 0.78)),
    ),
    DemoTask.POSE: Size(
        train=4000, val=120, epochs=2, settings=SHORT_RUN, promise=(("box/ap50", 0.9), ("pose/ap50", 0.9))
    ),
    DemoTask.OBB: Size(
        train=4000, val=120, epochs=2, settings=(*SHORT_RUN, HARD_CLASSES), promise=(("obb/ap50", 0.7),)
    ),
    DemoTask.CLASSIFY: Size(train=4000, val=200, epochs=4, imgsz=96, settings=("train.lr0=0.001", "augment.scale=0.2")),
}
# Shows that everything runs, learns nothing.
QUICK = Size(train=48, val=12, epochs=2, settings=("augment.close_mosaic=1",))


def demo(
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Folder of the demo; a new one under runs/.")
    ] = None,
    task: Annotated[DemoTask, typer.Option("--task", help="What to learn.")] = DemoTask.DETECT,
    quick: Annotated[
        bool, typer.Option("--quick", help="A few images and epochs only: shows the way, not the result.")
    ] = False,
    device: Device = None,
) -> None:
    """Draw a dataset, train on it, evaluate, predict.

    Ends with pictures in the run folder: predictions beside labels, training curves, precision-recall curve and
    confusion matrix.
    """
    from boxwright import api
    from boxwright.cli.console import say, show
    from boxwright.cli.progress import duration, make_listener
    from boxwright.cli.tables import class_results
    from boxwright.engine.runfolder import free_folder
    from boxwright.vocabulary import TASKS

    began = time.monotonic()
    size = QUICK if quick else FULL[task]
    folder = out or free_folder(api.RUNS / "demo")
    listener = make_listener()
    data = _draw(folder / "scenes", size, task, listener)
    say(f"drew {size.train} training and {size.val} held-out scenes: {data}")

    run = api.train(
        PRESET + TASKS[task.value].suffix,
        data=data,
        out=folder / "run",
        listener=listener,
        settings=[*size.settings, f"train.nominal_batch={BATCH}"],
        epochs=size.epochs,
        imgsz=size.imgsz,
        batch=BATCH,
        seed=SEED,
        device=device,
    )
    # Once more from the file, as a user would: the weights on disk are what was measured.
    found = run.model().validate(split="val", listener=listener, device=device).result
    show(class_results(found, title=f"{size.val} held-out scenes"))
    say(f"run folder: {run.folder}")
    for name in sorted(path.name for path in run.folder.iterdir() if path.suffix in (".png", ".jpg")):
        say(f"  {name}")
    took = duration(time.monotonic() - began)
    say(f"{_scores(found.metrics)}, in {took}", style="bold")
    broken = broken_promise(size, found.metrics)
    if broken is not None:
        raise TrainingError(broken)


def broken_promise(size: Size, metrics: "Mapping[str, float]") -> str | None:
    """What to say about a demo that ended below what it promises; None for one that kept it."""
    missed = [
        f"{name} {metrics[name]:.3f} instead of {least:.2f}" for name, least in size.promise if metrics[name] < least
    ]
    if not missed:
        return None
    return (
        f"the demo learned less than on every machine it was tried on: {', '.join(missed)} or more. Training is not "
        "right here; please report it with the output of `boxwright version`"
    )


def _scores(metrics: "Mapping[str, float]") -> str:
    """The numbers that the task is about, in words."""
    if "top1" in metrics:
        return f"top-1 {metrics['top1']:.3f}, top-5 {metrics['top5']:.3f}"
    words = {"box": "box", "mask": "mask", "pose": "keypoint", "obb": "oriented box"}
    kinds = [kind for kind in words if f"{kind}/ap50" in metrics]
    return "; ".join(
        f"{words[kind]} mAP50 {metrics[f'{kind}/ap50']:.3f}, mAP50-95 {metrics[f'{kind}/ap50_95']:.3f}"
        for kind in kinds
    )


def _draw(folder: Path, size: Size, task: DemoTask, listener: "Listener") -> Path:
    from boxwright.drawn.synthetic import draw_dataset
    from boxwright.engine.logs import counted_stage

    with counted_stage(listener, "drawing scenes") as on_progress:
        return draw_dataset(
            folder,
            train=size.train,
            val=size.val,
            imgsz=size.imgsz,
            seed=SEED,
            task=task.value,
            on_progress=on_progress,
        )
