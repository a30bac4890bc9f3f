# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Writes classification folders: `<split>/<class name>/<images>`."""

from boxwright.datasets.convert.job import Job
from boxwright.errors import DataError


def write(job: Job) -> str:
    """Fills the job's folder; the folder itself is the dataset."""
    job.refuse(("classify",))
    if job.images == "none":
        raise DataError("convert: in a classification folder the images are the labels; use --images copy or link")
    for part in job.parts:
        for split in part.splits:
            for name in job.header.names:
                (job.folder / split / name).mkdir(parents=True)
            for record in part.records:
                assert record.image_label is not None  # the task says so
                place = f"{split}/{job.header.names[record.image_label]}"
                job.place(record, place, place)
    return "."
