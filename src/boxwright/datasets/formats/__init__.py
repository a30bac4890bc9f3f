# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Room card: datasets.formats.

Lives here: one file per dataset format, which reads labels to pixels of their image and writes them where `write` is
not None; `collect` keeps the books while the entries of an image are read, `job` is what a writer gets.
May import: datasets.sample, codes, policy, images, image_header, raster; numpy, OpenCV, yaml; never torch.
To add one more: write `formats/<name>.py` with a `Format` (base.py) and add one line to FORMATS.
Never: write to a user's file or outside a job's folder, run or download anything a dataset names, drop a row without a
problem that says so, leave something out of a new dataset without counting it.
"""

from collections.abc import Sequence
from pathlib import Path

from boxwright.datasets.formats.base import Format
from boxwright.datasets.formats.coco import Coco
from boxwright.datasets.formats.crowdhuman import CrowdHuman
from boxwright.datasets.formats.dota import Dota
from boxwright.datasets.formats.folder import Folder
from boxwright.datasets.formats.listing import refuse_archive
from boxwright.datasets.formats.voc import Voc
from boxwright.datasets.formats.widerface import WiderFace
from boxwright.datasets.formats.yolo import Yolo
from boxwright.datasets.sample import DatasetHeader
from boxwright.errors import DataError

# What a dataset can be, for messages.
DATASETS = (
    "a YOLO data.yaml, a folder in YOLO layout (images/train, images/val, labels/train, labels/val), a Pascal VOC "
    "folder (Annotations, JPEGImages, ImageSets/Main), a COCO JSON file or a folder with annotations/*.json, a DOTA "
    "folder (images, labelTxt), a folder of images by class (train/<class>, val/<class>), WIDER FACE "
    "(wider_face_train_bbx_gt.txt) or CrowdHuman (annotation_train.odgt)"
)

# The one list; asked in this order.
FORMATS: tuple[Format, ...] = (Voc(), Coco(), Dota(), WiderFace(), CrowdHuman(), Yolo(), Folder())


def open_dataset(source: str | Path, names: Sequence[str] | None = None) -> DatasetHeader:
    """What the dataset at `source` says about itself; `names` sets class names where the labels carry names (VOC).

    Raises:
        DataError: there is nothing there, no known format, or the description is wrong.
    """
    path = Path(source).expanduser()
    if not str(source).strip() or not path.exists():
        raise DataError(f"{source or 'data.source'}: no such file or folder; expected {DATASETS}")
    refuse_archive(path)
    for form in FORMATS:
        if form.detect(path):
            return form.header(path, names)
    raise DataError(f"{source}: not a dataset; expected {DATASETS}")


def format_named(name: str) -> Format:
    """The format that a header names."""
    return next(form for form in FORMATS if form.name == name)
