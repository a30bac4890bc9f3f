# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Writes YOLO labels: `images/<split>`, `labels/<split>`, `data.yaml`."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from boxwright.datasets.convert.job import Job, number
from boxwright.datasets.formats.shapes import clip_polygon, flaw, join_parts
from boxwright.datasets.sample import Instances, Record
from boxwright.vocabulary import AttributeSpec

_DIGITS = 9  # of a coordinate over the side of the image: 1e-5 px at 10 000 px
_HOLDS: Mapping[str, frozenset[str]] = {
    "detect": frozenset(),
    "segment": frozenset(("polygons",)),
    "pose": frozenset(("keypoints",)),
    "obb": frozenset(("corners",)),
}


def write(job: Job) -> str:
    """Fills the job's folder; returns the name of the `data.yaml`."""
    job.refuse(("detect", "segment", "pose", "obb"))
    for part in job.parts:
        for record in part.records:
            name = job.place(record, f"images/{part.folder}", part.folder)
            job.count_lost(record.instances, _HOLDS[job.task] | {"attributes"})
            text = "".join(f"{row}\n" for row in _rows(job, record))
            job.write(f"labels/{part.folder}/{Path(name).stem}.txt", text)
        if job.images == "none" or not part.records:
            (job.folder / "images" / part.folder).mkdir(parents=True, exist_ok=True)
    job.write("data.yaml", yaml.safe_dump(_description(job), sort_keys=False, allow_unicode=True))
    return "data.yaml"


def _description(job: Job) -> dict[str, Any]:
    header = job.header
    content: dict[str, Any] = {split: f"images/{part.folder}" for part in job.parts for split in part.splits}
    content["task"] = job.task
    content["names"] = dict(zip(header.class_ids, header.names, strict=True))
    if header.exclusive is not None:
        content["exclusive"] = header.exclusive
    points = header.keypoints
    if job.task == "pose" and points is not None:
        content["kpt_shape"] = [points.count, points.dims]
        if points.flip is not None:
            content["flip_idx"] = list(points.flip)
        if points.names:
            content["kpt_names"] = list(points.names)
        if points.skeleton:
            content["skeleton"] = [list(pair) for pair in points.skeleton]
    if header.attributes:
        content["attributes"] = {
            spec.name: {"values": list(spec.values), "multi_label": True} if spec.multi_label else list(spec.values)
            for spec in header.attributes
        }
    return content


def _rows(job: Job, record: Record) -> Iterator[str]:
    objects = record.instances
    scale = np.array(record.size[::-1], np.float64)
    for index, label in enumerate(objects.labels.tolist()):
        shape = _shape(job, record, index, scale)
        behind = [*_keypoints(job, objects, index, scale), *_attributes(job.header.attributes, objects, index)]
        yield " ".join(
            [str(job.header.class_ids[label]), *(number(v, _DIGITS) for v in shape.ravel().tolist()), *behind]
        )


def _shape(job: Job, record: Record, index: int, scale: np.ndarray) -> np.ndarray:
    """Centre, width and height of the box, or points of the outline or of the corners, over the side of the image."""
    objects = record.instances
    if job.task == "obb" and objects.corners is not None:
        return np.asarray(objects.corners[index].astype(np.float64) / scale)
    if job.task == "segment" and objects.polygons is not None and objects.polygons[index]:
        outline = _outline(job, objects.polygons[index], record.size)
        if outline is not None:
            return np.asarray(outline / scale)
    x1, y1, x2, y2 = objects.boxes[index].astype(np.float64).tolist()
    return np.array([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1] / np.tile(scale, 2))


def _outline(job: Job, parts: tuple[np.ndarray, ...], size: tuple[int, int]) -> np.ndarray | None:
    """One path inside the image; None where nothing of the outline is."""
    if len(parts) > 1:
        job.lose("parts of outlines (joined to one path by lines without area)", len(parts))
    path = join_parts(parts).astype(np.float64)
    height, width = size
    if path.min() < 0 or (path > (width, height)).any():
        job.lose("outlines beyond the image (clipped)")
        path = clip_polygon(path, float(width), float(height))
    if len(path) < 3 or flaw(path) is not None:
        job.lose("outlines without area inside the image")
        return None
    return path


def _keypoints(job: Job, objects: Instances, index: int, scale: np.ndarray) -> list[str]:
    spec = job.header.keypoints
    if job.task != "pose" or spec is None:
        return []
    given = objects.keypoints
    points = np.zeros((spec.count, 3)) if given is None else given[index].astype(np.float64)
    fields = []
    for (x, y), seen in zip((points[:, :2] / scale).tolist(), points[:, 2].tolist(), strict=True):
        if spec.dims == 3:
            fields += [number(x, _DIGITS), number(y, _DIGITS), str(int(seen))]
        else:
            fields += [number(x, _DIGITS), number(y, _DIGITS)] if seen > 0 else ["-1", "-1"]
    return fields


def _attributes(specs: tuple[AttributeSpec, ...], objects: Instances, index: int) -> list[str]:
    fields: list[str] = []
    for spec in specs:
        values = None if objects.attributes is None else objects.attributes[spec.name][index]
        if values is None:
            fields += ["-1"] * (len(spec.values) if spec.multi_label else 1)
        else:
            fields += [str(int(value)) for value in np.atleast_1d(values).tolist()]
    return fields
