# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Converting: what is written where, what is refused, what is said to be lost."""

import json

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from boxwright.cli.app import app
from boxwright.datasets.convert import WRITERS, convert_dataset
from boxwright.datasets.dataset import DataConfig, scan_split
from boxwright.datasets.formats import FORMATS, open_dataset
from boxwright.errors import DataError

GOOD = "1 0.25 0.25 0.1 0.1\n"


def records(source, split="train", **choices):
    return scan_split(open_dataset(source), split, DataConfig(**choices)).records


def test_every_format_that_can_be_written_says_what_it_holds_and_is_offered():
    written = {form.name: form for form in FORMATS if form.write is not None}
    assert written == dict(WRITERS)
    assert {form.name for form in FORMATS if form.holds} == set(written)


@pytest.mark.parametrize("to", ["yolo", "coco", "voc", "dota"])
def test_a_new_dataset_opens_and_reads_the_same_boxes(yolo, tmp_path, to):
    yolo.write({"a.jpg": GOOD + "0 .5 .5 .33 .21\n", "b.jpg": "", "c.jpg": None})

    report = convert_dataset(yolo.yaml, tmp_path / "new", to=to)

    assert (report.lossless, report.to, dict(report.images), report.objects) == (True, to, {"train": 3, "val": 1}, 3)
    assert open_dataset(report.destination).names == ("cat", "dog", "traffic light")
    for before, after in zip(records(yolo.yaml), records(report.destination), strict=True):
        assert after.image.read_bytes() == before.image.read_bytes()
        assert before.image.name == after.image.name
        np.testing.assert_allclose(after.instances.boxes, before.instances.boxes, atol=1e-3)
        np.testing.assert_array_equal(after.instances.labels, before.instances.labels)


def test_the_source_is_left_exactly_as_it_was(yolo, tmp_path, tree_hash):
    yolo.write({"a.jpg": GOOD})
    before = tree_hash(yolo.root)

    for mode in ("copy", "link", "none"):
        convert_dataset(yolo.yaml, tmp_path / mode, to="coco", images=mode)

    assert tree_hash(yolo.root) == before
    image = "images/train/a.jpg"
    assert (tmp_path / "link" / image).stat().st_ino == (yolo.root / image).stat().st_ino
    assert (tmp_path / "copy" / image).stat().st_ino != (yolo.root / image).stat().st_ino
    assert not (tmp_path / "none" / image).exists()


def test_places_that_hold_something_or_lie_in_the_source_are_refused(yolo, tmp_path):
    yolo.write({"a.jpg": GOOD})
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("mine")

    with pytest.raises(DataError, match="expected a new or empty folder"):
        convert_dataset(yolo.yaml, tmp_path / "full", to="coco")
    for inside in (yolo.root / "new", yolo.root / "images/new", yolo.root.parent):
        with pytest.raises(DataError, match=r"lies inside the dataset|new or empty"):
            convert_dataset(yolo.yaml, inside, to="coco")
    assert (tmp_path / "full/file").read_text() == "mine"
    assert not (yolo.root / "new").exists()


def test_nothing_is_left_behind_by_a_failure(yolo, tmp_path, monkeypatch):
    yolo.write({"a.jpg": GOOD})
    place = tmp_path / "place"
    place.mkdir()

    def fail(*_):
        raise OSError(18, "other device")

    monkeypatch.setattr("os.link", fail)
    with pytest.raises(DataError, match=r"cannot be linked .*--images copy"):
        convert_dataset(yolo.yaml, place / "new", to="coco", images="link")
    with pytest.raises(DataError, match="folder holds classify; expected one of these, got 'detect'; only"):
        convert_dataset(yolo.yaml, place / "new", to="folder")
    assert list(place.iterdir()) == []


def test_what_voc_cannot_hold_is_counted(yolo, tmp_path):
    yolo.write(
        {"a.jpg": "5 .1 .1 .5 .1 .5 .75 1\n9 .1 .1 .6 .1 .6 .75 -1\n", "b.jpg": "5 .5 .5 .2 .2 0"},
        val={"v.jpg": "5 .5 .5 .2 .2 0"},
        names="{5: cat, 9: dog}",
        extra="attributes: {colour: [red, blue]}\nexclusive: true\n",
    )

    report = convert_dataset(yolo.yaml, tmp_path / "new", to="voc")

    assert report.task == "segment"  # there are outlines
    assert dict(report.lost) == {
        "class ids": 2,
        "statement that classes are exclusive or not": 1,
        "outlines": 2,
        "values of attribute 'colour'": 3,
    }
    assert "lost in voc: outlines: 2" in report.lines()


def test_rows_that_were_not_read_are_counted(yolo, tmp_path):
    yolo.write({"a.jpg": GOOD + "0 .5 .5\n0 .5 .5 0 .1\n"})

    report = convert_dataset(yolo.yaml, tmp_path / "new", to="coco")

    assert dict(report.not_read) == {"bad_column_count": 1, "zero_area": 1}
    assert "not read: zero_area: 1 (boxwright check names each)" in report.lines()


def test_what_nothing_was_read_for_is_counted_as_lost(voc, make_object, tmp_path):
    voc.write({"a": make_object(extra="<truncated>1</truncated><pose>Left</pose>")})

    report = convert_dataset(voc.root, tmp_path / "new", to="coco")

    assert dict(report.lost) == {"values of truncated": 1, "values of pose": 1}
    assert not report.lossless
    assert "lost in coco: values of truncated: 1" in report.lines()


def test_errors_of_the_source_stop_the_conversion(yolo, tmp_path):
    yolo.write({"a.jpg": "7 .5 .5 .2 .2\n"})

    with pytest.raises(DataError, match="class 7 is outside"):
        convert_dataset(yolo.yaml, tmp_path / "new", to="coco")


def test_yolo_description_says_everything(tmp_path, encode, make_picture):
    root = tmp_path / "coco"
    root.mkdir()
    (root / "a.jpg").write_bytes(encode(make_picture()))
    category = {"id": 4, "name": "hand", "keypoints": ["tip", "root"], "skeleton": [[1, 2]], "flip_idx": [1, 0]}
    annotation = {"id": 1, "image_id": 1, "category_id": 4, "bbox": [10, 10, 20, 20], "area": 99.5,
                  "keypoints": [12, 12, 2, 0, 0, 0], "attributes": {"side": "left"}}  # fmt: skip
    crowd = {"id": 2, "image_id": 1, "category_id": 4, "bbox": [0, 0, 5, 5], "iscrowd": 1}
    content = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "categories": [category],
        "annotations": [annotation, crowd],
        "attributes": {"side": ["left", "right"], "marks": {"values": ["ring"], "multi_label": True}},
    }
    (root / "labels.json").write_text(json.dumps(content))

    report = convert_dataset(root, tmp_path / "new", to="yolo")

    described = yaml.safe_load((tmp_path / "new/data.yaml").read_text())
    assert described == {
        "train": "images/train",
        "val": "images/train",
        "task": "pose",
        "names": {4: "hand"},
        "kpt_shape": [2, 3],
        "flip_idx": [1, 0],
        "kpt_names": ["tip", "root"],
        "skeleton": [[0, 1]],
        "attributes": {"side": ["left", "right"], "marks": {"values": ["ring"], "multi_label": True}},
    }
    row = (tmp_path / "new/labels/train/a.txt").read_text()
    assert row == "4 0.333333333 0.5 0.333333333 0.5 0.2 0.3 2 0 0 0 0 -1\n"
    assert dict(report.lost) == {"stated areas": 1, "ignore regions": 1}
    header = open_dataset(report.destination)
    assert header.keypoints == open_dataset(root).keypoints
    assert header.attributes == open_dataset(root).attributes

    again = convert_dataset(root, tmp_path / "same", to="coco")
    assert again.lossless
    (after,) = records(again.destination, task="pose")
    assert after.instances.areas.tolist() == [99.5]
    assert after.instances.ignore.tolist() == [[0, 0, 5, 5]]
    assert open_dataset(again.destination).keypoints.flip == (1, 0)


def test_images_of_one_name_are_told_apart(yolo, tmp_path):
    yolo.write({"x/a.jpg": GOOD, "y/a.jpg": "0 .5 .5 .4 .4\n"})

    report = convert_dataset(yolo.yaml, tmp_path / "new", to="voc")

    assert [record.image.name for record in records(report.destination)] == ["a.jpg", "a_2.jpg"]
    assert [record.instances.labels.tolist() for record in records(report.destination)] == [[1], [0]]
    assert list(report.lost) == ["file names (changed: another image has the same)"]


def test_classification_folders_stay_as_they_are(tmp_path, encode, make_picture):
    for number, name in enumerate(("train/a/1.jpg", "train/b/1.jpg", "val/a/2.jpg", "val/b/3.jpg")):
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(make_picture(seed=number)))

    report = convert_dataset(tmp_path / "set", tmp_path / "new", to="folder")

    assert (report.task, report.lossless, report.objects) == ("classify", True, 4)
    names = [path.relative_to(tmp_path / "new").as_posix() for path in sorted((tmp_path / "new").rglob("*.jpg"))]
    assert names == ["train/a/1.jpg", "train/b/1.jpg", "val/a/2.jpg", "val/b/3.jpg"]
    with pytest.raises(DataError, match="yolo holds detect, segment, pose, obb; expected one of these, got 'classify'"):
        convert_dataset(tmp_path / "set", tmp_path / "other", to="yolo")


def test_command_line(yolo, tmp_path):
    yolo.write({"a.jpg": GOOD + "0 .1 .1 .5 .1 .5 .75\n"})

    result = CliRunner().invoke(
        app, ["data", "convert", str(yolo.yaml), str(tmp_path / "new"), "--to", "voc", "--task", "detect"]
    )

    assert result.exit_code == 0
    assert "yolo to voc (detect): images train 1, val 1; 3 objects" in result.output
    assert "lost in voc: outlines: 1" in result.output
    assert len(records(tmp_path / "new")) == 1


@pytest.mark.parametrize(("area", "lost"), [(403.9, 0), (404.1, 1), (396.1, 0), (395.9, 1)])
def test_an_area_within_a_hundredth_of_the_boxs_is_not_lost(tmp_path, encode, make_picture, area, lost):
    root = tmp_path / "coco"
    root.mkdir()
    (root / "a.jpg").write_bytes(encode(make_picture()))
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 10, 20, 20], "area": area}
    content = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "categories": [{"id": 1, "name": "hand"}],
        "annotations": [annotation],
    }
    (root / "labels.json").write_text(json.dumps(content))

    report = convert_dataset(root, tmp_path / "new", to="yolo")

    assert dict(report.lost) == ({"stated areas": 1} if lost else {})
