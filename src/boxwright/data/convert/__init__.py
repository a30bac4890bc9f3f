# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Room card: data.convert.

Lives here: one writer per dataset format, and `convert_dataset`, which reads any format and writes another.
May import: data.formats, data.dataset, data.sample, data.policy; numpy, yaml; never torch.
To add one more: write `convert/<name>.py` with a function `write(job)` and add one line to WRITERS.
Never: write outside the new folder, change a source file, or lose something without counting it.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from boxwright.data.convert import coco, dota, folder, voc, yolo
from boxwright.data.convert.job import ConversionReport, ImageMode, Job
from boxwright.data.convert.run import convert_dataset as _convert
from boxwright.data.policy import DataConfig
from boxwright.vocabulary import TaskName

__all__ = ["WRITERS", "ConversionReport", "ImageMode", "convert_dataset"]

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
