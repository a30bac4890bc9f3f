# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""CrowdHuman annotations. Images are 40 px high, 60 wide."""

import json

import pytest

from boxwright.datasets.dataset import DataConfig, scan_split
from boxwright.datasets.formats import open_dataset

PERSON = {"tag": "person", "fbox": [-10, 5, 30, 30], "vbox": [2, 5, 10, 20], "hbox": [4, 5, 4, 4],
          "head_attr": {"ignore": 1}, "extra": {"box_id": 0}}  # fmt: skip
IGNORED = {"tag": "person", "fbox": [40, 5, 10, 10], "vbox": [40, 5, 9, 9], "hbox": [41, 5, 3, 3],
           "head_attr": {}, "extra": {"ignore": 1}}  # fmt: skip
MASK = {"tag": "mask", "fbox": [0, 0, 8, 8], "vbox": [0, 0, 7, 7], "hbox": [0, 0, 6, 6], "extra": {"ignore": 1}}


@pytest.fixture
def crowd(tmp_path, encode, make_picture):
    root = tmp_path / "crowd"
    for split in ("train", "val"):
        (root / f"CrowdHuman_{split}/Images").mkdir(parents=True)
        image = f"{split},1"
        (root / f"CrowdHuman_{split}/Images/{image}.jpg").write_bytes(encode(make_picture(seed=len(split))))
        line = json.dumps({"ID": image, "gtboxes": [PERSON, IGNORED, MASK]})
        (root / f"annotation_{split}.odgt").write_text(line + "\n\n")
    return root


def scan(source, split="train", **choices):
    return scan_split(open_dataset(source), split, DataConfig(**choices))


@pytest.mark.parametrize(
    ("box", "people", "ignored"),
    [
        ("full", [[0, 5, 20, 35]], [[40, 5, 50, 15], [0, 0, 8, 8]]),
        ("visible", [[2, 5, 12, 25]], [[40, 5, 49, 14], [0, 0, 7, 7]]),
        ("head", [[41, 5, 44, 8]], [[4, 5, 8, 9], [0, 0, 6, 6]]),
    ],
)
def test_each_box_of_a_person_can_be_chosen(crowd, box, people, ignored):
    records = scan(crowd, box=box)

    (record,) = records.records
    assert record.image.name == "train,1.jpg"
    assert record.instances.boxes.tolist() == people
    assert record.instances.ignore.tolist() == ignored
    assert record.instances.ignore_labels.tolist() == [0, -1]
    assert records.report.problems == ()  # full boxes are meant to leave the image


def test_a_file_finds_its_sibling(crowd):
    header = open_dataset(crowd / "annotation_train.odgt")

    assert (header.format, header.names, list(header.splits)) == ("crowdhuman", ("person",), ["train", "val"])
    assert len(scan(crowd / "annotation_val.odgt", "val").records) == 1


def test_bad_lines_and_entries_are_named(crowd):
    file = crowd / "annotation_train.odgt"
    file.write_text(
        file.read_text() + "{\n[]\n" + json.dumps({"ID": "val,1", "gtboxes": [3, {"tag": "person"}, PERSON]})
    )

    records = scan(crowd)

    assert [(p.code, p.line) for p in records.report.problems] == [
        ("bad_json", 3), ("bad_entry", 4), ("bad_entry", None), ("bad_box", None)
    ]  # fmt: skip
    assert "val,1: entry 2: fbox: expected four numbers" in records.report.problems[3].message
    assert [len(record.instances) for record in records.records] == [1, 1]


def test_missing_images_are_reported(crowd):
    (crowd / "CrowdHuman_train/Images/train,1.jpg").unlink()

    assert [p.code for p in scan(crowd).report.problems][:1] == ["image_missing"]


def test_other_boxes_and_flags_of_a_person_are_counted_as_left_out(crowd):
    told = {**PERSON, "head_attr": {"ignore": 0, "occ": 1, "unsure": 0}, "extra": {"box_id": 0, "occ": 1}}
    line = json.dumps({"ID": "train,1", "gtboxes": [told, IGNORED, MASK]})
    (crowd / "annotation_train.odgt").write_text(line)

    assert dict(scan(crowd).report.left_out) == {
        "visible boxes": 1,
        "head boxes": 1,
        "values of extra occ": 1,
        "values of head_attr occ": 1,
        "values of head_attr unsure": 1,
    }
    seen = dict(scan(crowd, box="head").report.left_out)
    assert (seen["full boxes"], seen["visible boxes"], "head boxes" in seen) == (2, 2, False)
