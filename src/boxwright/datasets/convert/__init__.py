# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Room card: datasets.convert.

Lives here: one writer per dataset format, `convert_dataset`, which reads any format and writes another, and
`tile_dataset`, which cuts large images on the way.
May import: formats, dataset, images, sample, policy and instances of this room (objects that move); numpy,
OpenCV, yaml; never torch.
To add one more: write `convert/<name>.py` with a function `write(job)` and add one line to WRITERS.
Never: write outside the new folder, change a source file, or lose something without counting it.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from boxwright.datasets.convert import coco, dota, folder, voc, yolo
from boxwright.datasets.convert.job import ConversionReport, ImageMode, Job
from boxwright.datasets.convert.run import convert_dataset as _convert
from boxwright.datasets.convert.tiles import Tiling, TilingReport
from boxwright.datasets.convert.tiles import tile_dataset as _tile
from boxwright.datasets.policy import DataConfig
from boxwright.vocabulary import TaskName

__all__ = ["WRITERS", "ConversionReport", "ImageMode", "Tiling", "TilingReport", "convert_dataset", "tile_dataset"]

# The one list. A writer fills the job's folder and returns what to name as the new dataset, relative to the folder.
WRITERS: Mapping[str, Callable[[Job], str]] = {
    "yolo": yolo.write,
    "coco": coco.write,
    "voc": voc.write,
    "dota": dota.write,
    "folder": folder.write,
}
_DEFAULT = DataConfig()


def convert_dataset(
    source: str | Path,
    destination: str | Path,
    *,
    to: str,
    task: TaskName | None = None,
    config: DataConfig = _DEFAULT,
    images: ImageMode = "copy",
    on_progress: Callable[[str, int, int], None] | None = None,
) -> ConversionReport:
    """Writes a dataset in another format into a new folder, and says what that format could not hold.

    `task` is what the labels are read for; None takes what the dataset says, else whether it has outlines. The folder
    appears whole or not at all.

    Raises:
        DataError: the source has errors that must be decided first, the folder is not empty or lies in the source, or
            the format cannot hold this task at all.
    """
    return _convert(source, destination, to, WRITERS, task, config, images, on_progress)


def tile_dataset(
    source: str | Path,
    destination: str | Path,
    tiling: Tiling,
    *,
    to: str | None = None,
    task: TaskName | None = None,
    config: DataConfig = _DEFAULT,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> TilingReport:
    """Cuts the images of a dataset into overlapping tiles, in a new folder, and says what no tile holds.

    Tiles are PNG, the pixels of the source as training sees them; an image that fits a tile is copied as it is. `to` is
    the format to write; None takes the source's, or COCO where that one cannot be written. Otherwise as
    `convert_dataset`.

    Raises:
        DataError: as `convert_dataset`, or the labels are those of whole images.
    """
    return _tile(source, destination, tiling, to, WRITERS, task, config, on_progress)
