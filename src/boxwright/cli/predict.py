# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""`boxwright predict`: images in; a line each, and on request pictures and text files, out."""

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from boxwright.cli.options import Batch, Conf, Device, Imgsz, Iou, MaxDet, Weights
from boxwright.errors import DataError

if TYPE_CHECKING:
    import numpy as np

    from boxwright.results import Detections


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
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Where --save writes; a new folder under runs/.")
    ] = None,
) -> None:
    """Find objects in images and videos.

    [bold]boxwright predict photos/ --weights runs/yolov8n --save[/]
    """
    from boxwright import api
    from boxwright.cli.console import say
    from boxwright.cli.progress import make_listener
    from boxwright.cli.tables import counted
    from boxwright.engine.runfolder import free_folder

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
    writer = _Writer(out or free_folder(api.RUNS / "predict")) if save or out else None
    images = objects = 0
    for prediction in predictor.stream(source):
        images, objects = images + 1, objects + len(prediction.detections)
        say(_line(prediction.detections))
        if writer is not None:
            writer.add(prediction.image, prediction.detections)
    say(f"{counted(objects, 'object')} in {counted(images, 'image')}, with {model.path}")
    if writer is not None:
        writer.close()
        say(f"saved in {writer.folder}")


def _line(found: "Detections") -> str:
    counts = Counter(found.names[label] for label in found.labels.tolist())
    what = ", ".join(f"{count} {name}" for name, count in counts.most_common())
    return f"{found.path}: {what or 'nothing found'}"


class _Writer:
    """A folder with `pictures/`, `labels/` (YOLO rows with the score last) and `detections.json`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: list[dict[str, Any]] = []
        self.names: set[str] = set()
        try:
            for name in ("pictures", "labels"):
                (folder / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{folder}: cannot be made: {error.strerror}") from None

    def add(self, image: "np.ndarray", found: "Detections") -> None:
        """Writes one image's picture and rows."""
        import cv2

        from boxwright import viz

        name = self._name(found.path)
        drawn = viz.draw(image, found)
        picture = self.folder / "pictures" / f"{name}.jpg"
        if not cv2.imwrite(str(picture), cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR)):
            raise DataError(f"{picture}: cannot be written")
        (self.folder / "labels" / f"{name}.txt").write_text(yolo_rows(found), encoding="utf-8")
        height, width = found.image_size
        self.rows.append({"path": found.path, "width": width, "height": height, "detections": found.to_dicts()})

    def close(self) -> None:
        """Writes the table of everything."""
        text = json.dumps(self.rows, indent=1, ensure_ascii=False)
        (self.folder / "detections.json").write_text(text, encoding="utf-8")

    def _name(self, path: str | None) -> str:
        """A file name of its own for every image, also where two folders hold the same one."""
        file = Path(path or "image")
        stem = file.stem if "#" not in file.suffix else file.name.replace("#", "-")
        name, number = stem, 1
        while name in self.names:
            number += 1
            name = f"{stem}-{number}"
        self.names.add(name)
        return name


def yolo_rows(found: "Detections") -> str:
    """Class id, centre x, centre y, width, height (fractions of the image) and score, one detection a line."""
    height, width = found.image_size
    lines = []
    for row in found.to_dicts():
        x1, y1, x2, y2 = row["box"]
        values = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height, row["score"])
        lines.append(f"{row['class_id']} " + " ".join(f"{value:.6f}" for value in values) + "\n")
    return "".join(lines)
