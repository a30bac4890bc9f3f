# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Writes Pascal VOC: `Annotations`, `JPEGImages`, `ImageSets/Main`, and `classes.txt` for the order of the classes."""

from pathlib import Path
from xml.sax.saxutils import escape

from boxwright.datasets.convert.job import Job, number
from boxwright.datasets.sample import Record

_DIGITS = 4  # of a pixel


def write(job: Job) -> str:
    """Fills the job's folder; the folder itself is the dataset."""
    job.refuse(("detect", "segment", "pose", "obb"))
    lose_ids(job)
    for part in job.parts:
        ids = []
        for record in part.records:
            name = job.place(record, "JPEGImages")
            ids.append(Path(name).stem)
            job.count_lost(record.instances, frozenset())
            job.write(f"Annotations/{ids[-1]}.xml", _annotation(job, record, name))
        for split in part.splits:
            job.write(f"ImageSets/Main/{split}.txt", "".join(f"{line}\n" for line in ids))
    for name in ("Annotations", "JPEGImages"):
        (job.folder / name).mkdir(exist_ok=True)
    job.write("classes.txt", "".join(f"{name}\n" for name in job.header.names))
    return "."


def lose_ids(job: Job) -> None:
    """Counts class ids and the exclusive flag, for formats that name classes in words only."""
    header = job.header
    if header.class_ids != tuple(range(len(header.names))):
        job.lose("class ids", len(header.class_ids))
    if header.exclusive is not None:
        job.lose("statement that classes are exclusive or not")
    job.lose("classes with the name of another", len(header.names) - len(set(header.names)))


def _annotation(job: Job, record: Record, name: str) -> str:
    height, width = record.size
    lines = [
        "<annotation>",
        "\t<folder>JPEGImages</folder>",
        f"\t<filename>{escape(name)}</filename>",
        f"\t<size><width>{width}</width><height>{height}</height><depth>3</depth></size>",
    ]
    for label, box in zip(record.instances.labels.tolist(), record.instances.boxes.tolist(), strict=True):
        x1, y1, x2, y2 = box
        corners = (("xmin", x1 + 1), ("ymin", y1 + 1), ("xmax", x2), ("ymax", y2))  # 1-based, inclusive
        texts = "".join(f"<{tag}>{number(value, _DIGITS)}</{tag}>" for tag, value in corners)
        lines += [
            "\t<object>",
            f"\t\t<name>{escape(job.header.names[label])}</name>",
            "\t\t<pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult>",
            f"\t\t<bndbox>{texts}</bndbox>",
            "\t</object>",
        ]
    return "\n".join([*lines, "</annotation>", ""])
