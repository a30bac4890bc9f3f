# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Options that several commands share, each described once. A value of None leaves the recipe's own."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class SplitName(StrEnum):
    """The splits of a dataset."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"


class TaskChoice(StrEnum):
    """What labels can be read for."""

    DETECT = "detect"
    SEGMENT = "segment"
    POSE = "pose"
    OBB = "obb"
    CLASSIFY = "classify"


DATA_HELP = (
    "Dataset of any format: a YOLO data.yaml or folder, COCO JSON (file or folder), Pascal VOC, DOTA, a folder of "
    "images by class, WIDER FACE, CrowdHuman."
)

Preset = Annotated[
    str | None,
    typer.Argument(
        metavar="NAME",
        help="Preset: a family (yolov5, yolov8, yolov10, yolo11, yolo26, rtdetr), its size, and -seg, -pose, -obb or "
        "-cls for a task, such as yolov8n or yolo11s-seg; or a YAML table of layers. `boxwright recipe --list` names "
        "them all.",
    ),
]
Data = Annotated[Path | None, typer.Option("--data", metavar="PATH", help=DATA_HELP)]
Weights = Annotated[
    Path | None,
    typer.Option(
        "--weights", "-w", metavar="PATH", help="Weights file or run folder; without it the newest run's best."
    ),
]
Imgsz = Annotated[int | None, typer.Option("--imgsz", min=32, metavar="PX", help="Side of the network input.")]
Batch = Annotated[int | None, typer.Option("--batch", min=1, metavar="N", help="Images per step, over all processes.")]
Device = Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda, cuda:N.")]
Workers = Annotated[int | None, typer.Option("--workers", min=0, metavar="N", help="Loader processes per rank.")]
Conf = Annotated[
    float | None, typer.Option("--conf", min=0.0, max=1.0, help="Keep detections with a score above this.")
]
Iou = Annotated[
    float | None, typer.Option("--iou", min=0.0, max=1.0, help="Overlap above which the weaker box is removed.")
]
MaxDet = Annotated[int | None, typer.Option("--max-det", min=1, metavar="N", help="Detections kept per image.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B.C=VALUE", help="Any setting of the recipe; may be given several times."),
]
