# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Writes COCO JSON: `annotations/instances_<split>.json`, `images/<split>`."""

import json
from typing import Any

import numpy as np

from boxwright.datasets.convert.job import Job, Part, pixels
from boxwright.datasets.formats.declarations import mirror_order
from boxwright.datasets.formats.shapes import polygon_area
from boxwright.datasets.raster import outline_pixels
from boxwright.datasets.sample import Instances, Polygons, Record
from boxwright.vocabulary import AttributeSpec

_HOLDS = frozenset(("polygons", "keypoints", "areas", "ignore", "attributes"))


def write(job: Job) -> str:
    """Fills the job's folder; the folder itself is the dataset."""
    job.refuse(("detect", "segment", "pose", "obb"))
    if job.header.exclusive is not None:
        job.lose("statement that classes are exclusive or not")
    categories = _categories(job)
    for part in job.parts:
        images, annotations = _contents(job, part)
        for split in part.splits:
            prefix = "" if split == part.folder else f"{part.folder}/"  # found below images/
            content: dict[str, Any] = {"info": {"description": "converted by boxwright"}}
            if job.header.attributes:
                content["attributes"] = {
                    spec.name: {"values": list(spec.values), "multi_label": spec.multi_label}
                    for spec in job.header.attributes
                }
            content["images"] = [{**image, "file_name": prefix + image["file_name"]} for image in images]
            content |= {"annotations": annotations, "categories": categories}
            job.write(f"annotations/instances_{split}.json", json.dumps(content, ensure_ascii=False))
    return "."


def _categories(job: Job) -> list[dict[str, Any]]:
    points = job.header.keypoints
    more: dict[str, Any] = {}
    if points is not None:
        names = points.names or tuple(f"keypoint_{index}" for index in range(points.count))
        more = {"keypoints": list(names), "skeleton": [[first + 1, second + 1] for first, second in points.skeleton]}
        if points.flip is not None and points.flip != mirror_order(names):
            more["flip_idx"] = list(points.flip)  # ours: COCO leaves it to the names
    return [
        {"id": number, "name": name, **more}
        for number, name in zip(job.header.class_ids, job.header.names, strict=True)
    ]


def _contents(job: Job, part: Part) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, record in enumerate(part.records, 1):
        name = job.place(record, f"images/{part.folder}", part.folder)
        job.count_lost(record.instances, _HOLDS | ({"corners"} if job.task == "obb" else set()))
        height, width = record.size
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        for entry in [*_objects(job, record), *_regions(job, record)]:
            annotations.append({"id": len(annotations) + 1, "image_id": number, **entry})
    return images, annotations


def _objects(job: Job, record: Record) -> list[dict[str, Any]]:
    objects = record.instances
    return [_object(job, objects, index) for index in range(len(objects))]


def _object(job: Job, objects: Instances, index: int) -> dict[str, Any]:
    x1, y1, x2, y2 = objects.boxes[index].astype(np.float64).tolist()
    parts = () if objects.polygons is None else objects.polygons[index]
    if job.task == "obb" and objects.corners is not None:
        if parts:
            job.lose("outlines (the oriented box takes their place)")
        parts = (objects.corners[index],)
    area = sum(polygon_area(part) for part in parts) if parts else (x2 - x1) * (y2 - y1)
    if objects.areas is not None:
        area = float(objects.areas[index])
    entry: dict[str, Any] = {
        "category_id": job.header.class_ids[int(objects.labels[index])],
        "bbox": pixels(np.array([x1, y1, x2 - x1, y2 - y1])),
        "area": round(area, 4),
        "iscrowd": 0,
    }
    if parts:
        entry["segmentation"] = [pixels(part) for part in parts]
    if objects.keypoints is not None:
        points = objects.keypoints[index]
        entry["keypoints"] = pixels(points)
        entry["num_keypoints"] = int((points[:, 2] > 0).sum())
    known = {} if objects.attributes is None else _attributes(job.header.attributes, objects.attributes, index)
    if known:
        entry["attributes"] = known
    return entry


def _attributes(specs: tuple[AttributeSpec, ...], values: Any, index: int) -> dict[str, Any]:
    known: dict[str, Any] = {}
    for spec in specs:
        value = values[spec.name][index]
        if not spec.multi_label:
            if int(value) >= 0:
                known[spec.name] = spec.values[int(value)]
        elif (value >= 0).all():
            known[spec.name] = [name for name, flag in zip(spec.values, value.tolist(), strict=True) if flag > 0]
        elif (value >= 0).any():
            known[spec.name] = [int(flag) for flag in value.tolist()]
    return known


def _regions(job: Job, record: Record) -> list[dict[str, Any]]:
    """Ignore regions as crowds, their shapes as run lengths; one for all classes becomes one for each class."""
    objects = record.instances
    if objects.ignore is None:
        return []
    count = len(objects.ignore)
    labels = [-1] * count if objects.ignore_labels is None else objects.ignore_labels.tolist()
    shapes = ((),) * count if objects.ignore_outlines is None else objects.ignore_outlines
    entries = []
    for box, label, shape in zip(objects.ignore.astype(np.float64), labels, shapes, strict=True):
        x1, y1, x2, y2 = box.tolist()
        told = _run_lengths(job, shape, record.size) if shape else {}
        for number in job.header.class_ids if label < 0 else (job.header.class_ids[label],):
            bbox = pixels(np.array([x1, y1, x2 - x1, y2 - y1]))
            area = round((x2 - x1) * (y2 - y1), 4)
            entries.append({"category_id": number, "bbox": bbox, "area": area, "iscrowd": 1, **told})
    return entries


def _run_lengths(job: Job, shape: Polygons, size: tuple[int, int]) -> dict[str, Any]:
    """Area and segmentation of a crowd: column by column, beginning with the number of pixels outside."""
    if any((part != part.round()).any() for part in shape):
        job.lose("parts of a pixel at the edges of crowds (written as whole pixels)")
    patch = outline_pixels(shape, size)
    mask = np.zeros(size, np.bool_)
    mask[patch.window] = patch.pixels
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat, prepend=False))
    counts = np.diff(edges, prepend=0, append=flat.size).tolist()
    return {"area": int(mask.sum()), "segmentation": {"size": list(size), "counts": counts}}
