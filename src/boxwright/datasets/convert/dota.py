# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Writes DOTA: `<split>/images`, `<split>/labelTxt`, and `classes.txt` for the order of the classes."""

from pathlib import Path

import numpy as np

from boxwright.datasets.convert.job import Job, number
from boxwright.datasets.convert.voc import lose_ids
from boxwright.datasets.formats.shapes import box_corners
from boxwright.datasets.sample import Record

_DIGITS = 4  # of a pixel


def write(job: Job) -> str:
    """Fills the job's folder; the folder itself is the dataset. Boxes become corners without an angle."""
    job.refuse(("detect", "segment", "pose", "obb"))
    lose_ids(job)
    # One part for every split is what a folder without splits means.
    single = len(job.parts) == 1
    for part in job.parts:
        for split in part.splits[:1] if single else part.splits:
            folder = "" if single else f"{split}/"
            for record in part.records:
                name = job.place(record, f"{folder}images", split)
                if split == part.folder:
                    job.count_lost(record.instances, frozenset(("corners",)))
                job.write(f"{folder}labelTxt/{Path(name).stem}.txt", _rows(job, record))
            for name in ("images", "labelTxt"):
                (job.folder / folder / name).mkdir(parents=True, exist_ok=True)
    job.write("classes.txt", "".join(f"{name}\n" for name in job.header.names))
    return "."


def _rows(job: Job, record: Record) -> str:
    objects = record.instances
    rows = []
    for index, label in enumerate(objects.labels.tolist()):
        corners = box_corners(objects.boxes[index].tolist()) if objects.corners is None else objects.corners[index]
        values = " ".join(number(value, _DIGITS) for value in np.asarray(corners, np.float64).ravel().tolist())
        rows.append(f"{values} {job.header.names[label]} 0\n")
    return "".join(rows)
