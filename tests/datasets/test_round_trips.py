# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""From one format to the next and back: nothing that both can express is lost, on drawn and on real labels."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boxwright.datasets.convert import WRITERS
from boxwright.datasets.convert import convert_dataset as convert
from boxwright.datasets.dataset import DataConfig, scan_split
from boxwright.datasets.formats import open_dataset
from boxwright.datasets.formats.job import Job, Part
from boxwright.datasets.formats.shapes import holes
from boxwright.datasets.sample import DatasetHeader, Instances, Record
from boxwright.vocabulary import AttributeSpec, KeypointSpec

TOLERANCE = 1e-3  # px


def read(source, task, split="train", **choices):
    config = DataConfig(task=task, keep="all", allow_empty=True, allow_missing=True, **choices)
    return scan_split(open_dataset(source), split, config).records


def by_name(records):
    return {record.image.stem: record for record in records}


def assert_same(before, after, *fields):
    """Equal images, classes and boxes, and what `fields` name."""
    assert by_name(before).keys() == by_name(after).keys()
    assert sum(len(record.instances) for record in before) > 0
    for name, first in by_name(before).items():
        one, two = first.instances, by_name(after)[name].instances
        np.testing.assert_array_equal(two.labels, one.labels)
        for field in ("boxes", *fields):
            assert_equal_field(getattr(one, field), getattr(two, field), field)


def assert_equal_field(one, two, field):
    if field == "polygons":
        assert [[len(part) for part in parts] for parts in two] == [[len(part) for part in parts] for parts in one]
        for first, second in zip(one, two, strict=True):
            for before, after in zip(first, second, strict=True):
                np.testing.assert_allclose(after, before, atol=TOLERANCE)
    elif field == "attributes":
        assert two.keys() == one.keys()
        for name in one:
            np.testing.assert_array_equal(two[name], one[name])
    elif one is None:
        assert two is None
    else:
        np.testing.assert_allclose(two, one, atol=TOLERANCE)


# -- drawn labels --------------------------------------------------------------------------------------------------

POINTS = KeypointSpec(count=3, names=("nose", "left_eye", "right_eye"), flip=(0, 2, 1), skeleton=((0, 1), (0, 2)))
ATTRIBUTES = (
    AttributeSpec(name="colour", values=("red", "blue")),
    AttributeSpec(name="marks", values=("dot", "bar"), multi_label=True),
)


def draw(seed, count, height, width, task):
    """Objects inside an image, with everything that a task's labels can say."""
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 0.6, (count, 2)) * (width, height)
    sides = rng.uniform(0.05, 0.4, (count, 2)) * (width, height)
    boxes = np.concatenate((corner, corner + sides), axis=1).astype(np.float32)
    fields = {"boxes": boxes, "labels": rng.integers(0, 3, count)}
    fields["attributes"] = {
        "colour": rng.integers(-1, 2, count),
        "marks": rng.integers(0, 2, (count, 2)).astype(np.float32) * np.where(rng.random((count, 1)) < 0.2, np.nan, 1),
    }
    fields["attributes"]["marks"] = np.nan_to_num(fields["attributes"]["marks"], nan=-1).astype(np.float32)
    low, high = boxes[:, None, :2], boxes[:, None, 2:]
    if task == "segment":
        turns = np.sort(rng.random((count, 7)), axis=1) * 2 * np.pi
        circle = np.stack([np.cos(turns), np.sin(turns)], -1)
        outlines = ((low + high) / 2 + circle * (high - low) / 2).astype(np.float32)
        fields["polygons"] = tuple((outline,) for outline in outlines)
        fields["boxes"] = np.concatenate((outlines.min(axis=1), outlines.max(axis=1)), axis=1)
    if task == "pose":
        seen = rng.integers(0, 3, (count, 3, 1))
        points = np.concatenate((rng.uniform(0, 1, (count, 3, 2)) * (width, height), seen), axis=2)
        fields["keypoints"] = np.where(seen > 0, points, 0).astype(np.float32)
    if task == "obb":
        turn = rng.uniform(0, np.pi, count)
        along = np.stack([np.cos(turn), np.sin(turn)], -1) * sides.min(axis=1, keepdims=True) / 4
        across = along[:, ::-1] * (-1, 1) / 2
        centre = (corner + sides / 2)[:, None]
        corners = centre + np.stack([-along - across, along - across, along + across, across - along], axis=1)
        fields["corners"] = corners.astype(np.float32)
        fields["boxes"] = np.concatenate((corners.min(axis=1), corners.max(axis=1)), axis=1).astype(np.float32)
    return Instances(**fields)


ROUTES = [
    ("detect", ("yolo",), ("attributes",)),
    ("detect", ("coco",), ("attributes",)),
    ("detect", ("voc", "yolo", "dota", "coco"), ()),
    ("segment", ("yolo", "coco", "yolo"), ("polygons", "attributes")),
    ("pose", ("coco", "yolo", "coco"), ("keypoints", "attributes")),
    ("obb", ("yolo", "coco", "yolo"), ("corners", "attributes")),
    ("obb", ("dota", "yolo", "dota"), ("corners",)),
]


@pytest.mark.parametrize(("task", "route", "fields"), ROUTES)
@settings(max_examples=4, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), count=st.integers(1, 6), height=st.integers(40, 200), width=st.integers(40, 2000)
)
def test_drawn_labels_survive_every_route(task, route, fields, seed, count, height, width):
    objects = draw(seed, count, height, width, task)
    with TemporaryDirectory() as text:
        folder = Path(text)
        image = folder / "image.png"
        cv2.imwrite(str(image), np.zeros((height, width, 3), np.uint8))
        header = DatasetHeader(
            "yolo", folder, folder, ("cat", "dog", "red kite"), (0, 1, 2), {}, task=task, attributes=ATTRIBUTES,
            keypoints=POINTS if task == "pose" else None,
        )  # fmt: skip
        before = (Record(image, (height, width), objects),)
        (folder / "first").mkdir()
        form = WRITERS[route[0]]
        parts = [Part(("train", "val"), before)]
        job = Job(folder / "first", header, task, form.holds[task], parts, "copy", lambda: None)
        source = folder / "first" / form.write(job)
        for step, to in enumerate(route[1:]):
            source = convert(source, folder / f"step{step}", to=to, task=task).destination

        assert_same(before, read(source, task), *fields)


def test_crowds_come_back_with_every_pixel(tmp_path):
    """Also with a hole, in several pieces, and at the sides of the image."""
    rng = np.random.default_rng(0)
    mask = cv2.GaussianBlur(rng.random((40, 60)), (0, 0), 2) > 0.5
    flat = mask.ravel(order="F")
    counts = np.diff(np.flatnonzero(np.diff(flat, prepend=False)), prepend=0, append=flat.size).tolist()
    assert holes(mask) > 0
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((40, 60, 3), np.uint8))
    ring = {"size": [40, 60], "counts": counts}
    crowd = {"image_id": 1, "category_id": 1, "iscrowd": 1, "bbox": [0, 0, 60, 40], "area": int(mask.sum())}
    annotations = [{"id": 1, **crowd, "segmentation": ring}, {"id": 2, **crowd, "bbox": [3, 4, 10, 10]}]
    content = {"images": [{"id": 1, "file_name": "a.png"}], "categories": [{"id": 1, "name": "cat"}]}
    (tmp_path / "labels.json").write_text(json.dumps({**content, "annotations": annotations}))

    report = convert(tmp_path, tmp_path.parent / f"{tmp_path.name}-new", to="coco", task="segment")

    assert report.lossless
    file = min(report.destination.glob("annotations/*.json"))  # both splits are the same
    first, second = json.loads(file.read_text())["annotations"]
    assert (first["segmentation"], first["area"], first["iscrowd"]) == (ring, mask.sum(), 1)
    assert ("segmentation" in second, second["bbox"]) == (False, [3, 4, 10, 10])
    lost = convert(tmp_path, tmp_path.parent / f"{tmp_path.name}-yolo", to="yolo", task="segment").lost
    assert dict(lost) == {"ignore regions": 2}


# -- real labels ---------------------------------------------------------------------------------------------------


def test_real_voc_to_yolo_to_coco_to_voc(shared_data, tmp_path):
    source = shared_data("bccd")
    report = convert(source, tmp_path / "yolo", to="yolo", images="copy")
    assert dict(report.lost) == {"values of truncated": 1131}  # a flag that YOLO rows have no place for
    assert dict(report.not_read) == {"zero_area": 2}
    second = convert(report.destination, tmp_path / "coco", to="coco", images="link")
    third = convert(second.destination, tmp_path / "voc", to="voc", images="link")
    assert second.lossless
    assert third.lossless
    assert open_dataset(third.destination).names == open_dataset(source).names
    for split in ("train", "val", "test"):
        before, after = read(source, "detect", split), read(third.destination, "detect", split)
        assert_same(before, after)
        for name, record in by_name(before).items():  # whole pixels come back as whole pixels
            np.testing.assert_array_equal(by_name(after)[name].instances.boxes.round(), record.instances.boxes)


def test_real_outlines_to_coco_and_back(shared_data, tmp_path):
    source = shared_data("coco-mini") / "instance_segmentation"
    report = convert(source, tmp_path / "coco", to="coco")
    back = convert(report.destination, tmp_path / "yolo", to="yolo", images="link")

    assert report.task == "segment"
    assert report.lossless
    # COCO states areas that YOLO has no place for; outlines carry them.
    assert set(back.lost) <= {"stated areas"}
    header = open_dataset(back.destination)
    assert (header.names, header.class_ids) == (open_dataset(source).names, open_dataset(source).class_ids)
    for split in ("train", "val"):
        assert_same(read(source, "segment", split), read(back.destination, "segment", split), "polygons")


def test_real_boxes_to_every_format_and_back(shared_data, tmp_path):
    source = shared_data("coco-mini") / "object_detection"
    place = source
    for to in ("coco", "dota", "voc", "yolo"):
        place = convert(place, tmp_path / to, to=to, task="detect").destination

    assert open_dataset(place).names == open_dataset(source).names
    for split in ("train", "val"):
        assert_same(read(source, "detect", split), read(place, "detect", split))


def test_real_keypoints_to_yolo_and_back(shared_data, tmp_path):
    source = shared_data("coco-keypoints")
    report = convert(source, tmp_path / "yolo", to="yolo")
    back = convert(report.destination, tmp_path / "coco", to="coco", images="link")

    assert report.task == "pose"
    assert dict(report.lost) == {"outlines": 14, "stated areas": 14}
    assert back.lossless
    assert_same(read(source, "pose"), read(back.destination, "pose"), "keypoints")
    assert open_dataset(back.destination).keypoints == open_dataset(source).keypoints

    whole = convert(source, tmp_path / "same", to="coco")
    assert whole.lossless
    assert_same(read(source, "pose"), read(whole.destination, "pose"), "keypoints", "polygons", "areas")


def test_real_oriented_boxes_to_yolo_and_back(shared_data, tmp_path):
    source = shared_data("dota-mini")
    report = convert(source, tmp_path / "yolo", to="yolo")
    back = convert(report.destination, tmp_path / "dota", to="dota", images="link")

    assert (report.task, report.lossless, back.lossless) == ("obb", True, True)
    assert open_dataset(back.destination).names == open_dataset(source).names
    assert_same(read(source, "obb"), read(back.destination, "obb"), "corners")
