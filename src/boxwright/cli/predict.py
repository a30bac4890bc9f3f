# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""`boxwright predict`: images in; a line each, and on request pictures and text files, out."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from boxwright.cli.options import Batch, Conf, Device, Imgsz, Iou, MaxDet, Weights

if TYPE_CHECKING:
    from boxwright.results import Classification, Detections

SHOWN_CLASSES = 3  # of a classification, in its line


def predict(
    source: Annotated[
        list[str], typer.Argument(metavar="SOURCE...", help="Images, folders, videos, or glob patterns in quotes.")
    ],
    weights: Weights = None,
    conf: Conf = None,
    iou: Iou = None,
    max_det: MaxDet = None,
    imgsz: Imgsz = None,
    batch: Batch = None,
    device: Device = None,
    classes: Annotated[
        list[str] | None,
        typer.Option("--class", metavar="NAME", help="Keep only this class; may be given several times."),
    ] = None,
    save: Annotated[
        bool, typer.Option("--save", help="Write drawn pictures, detections.json and YOLO text files.")
    ] = False,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            metavar="KIND",
            help="Write pictures, yolo, json, coco (results) or parquet; may be given several times.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Where files are written; a new folder under runs/.")
    ] = None,
) -> None:
    """Find objects in images and videos, or classify them.

    [bold]boxwright predict photos/ --weights runs/yolov8n --save[/]
    """
    from boxwright import api
    from boxwright.cli.console import say
    from boxwright.cli.progress import make_listener
    from boxwright.cli.tables import counted
    from boxwright.cli.writers import USUAL, ResultFolder
    from boxwright.engine.runfolder import free_folder
    from boxwright.results import Detections
    from boxwright.vocabulary import TASKS

    options: dict[str, Any] = {
        "conf": conf,
        "iou": iou,
        "max_det": max_det,
        "imgsz": imgsz,
        "batch": batch,
        "device": device,
    }
    options["classes"] = classes or None
    given = {name: value for name, value in options.items() if value is not None}
    model = api.load(weights or api.newest_weights())
    predictor = model.predictor(listener=make_listener(), **given)
    writer = None
    if save or out or formats:
        kinds = [*(USUAL if save or not formats else ()), *(formats or ())]
        writer = ResultFolder(out or free_folder(api.RUNS / "predict"), kinds)
    images = objects = 0
    for prediction in predictor.stream(source):
        found = prediction.found
        images, objects = images + 1, objects + (len(found) if isinstance(found, Detections) else 0)
        say(_line(found))
        if writer is not None:
            writer.add(prediction.image, found)
    seen = counted(images, "image")
    what = seen if TASKS[predictor.vocabulary.task].whole_image else f"{counted(objects, 'object')} in {seen}"
    say(f"{what}, with {model.path}")
    if writer is not None:
        writer.close()
        say(f"saved in {writer.folder}")


def _line(found: "Detections | Classification") -> str:
    from boxwright.results import Classification

    if isinstance(found, Classification):
        best = ", ".join(f"{name} {score:.2f}" for name, score in found.top(SHOWN_CLASSES))
        return f"{found.path}: {best}"
    counts = Counter(found.names[label] for label in found.labels.tolist())
    what = ", ".join(f"{count} {name}" for name, count in counts.most_common())
    return f"{found.path}: {what or 'nothing found'}"
