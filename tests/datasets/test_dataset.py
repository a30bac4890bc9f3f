# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Splits as a whole: reports, errors, strictness, and that nothing of the user's is touched."""

import json
import subprocess
import sys

import numpy as np
import pytest

from boxwright.config import from_dict, override, to_dict
from boxwright.datasets.dataset import DataConfig, read_split
from boxwright.datasets.formats import FORMATS, format_named, open_dataset
from boxwright.datasets.report import report_to_dict, summary_line
from boxwright.errors import ConfigError, DataError

GOOD = "1 0.25 0.25 0.1 0.1\n"


def test_report_counts_everything_once(yolo):
    yolo.write({"a.jpg": GOOD + GOOD + "0 .5 .5 .2\n", "b.jpg": "", "c.jpg": None, "d.jpg": "0 .95 .5 .2 .5\n"})
    yolo.image("train/e.jpg", b"")

    report = yolo.scan().report

    assert (report.images, report.labels_found, report.missing, report.empty, report.corrupt) == (4, 2, 1, 1, 1)
    assert (report.rows, report.rows_dropped, report.rows_fixed, report.duplicates) == (4, 1, 1, 1)
    assert dict(report.per_class_counts) == {"cat": 1, "dog": 1, "traffic light": 0}
    assert [problem.code for problem in report.problems] == [
        "duplicate_row", "bad_column_count", "box_clipped", "image_empty", "labels_missing",
    ]  # fmt: skip
    assert summary_line("train", report) == (
        "train: 4 images, 2 boxes; 1 without a label file; 1 with an empty label file; 1 images dropped; "
        "1 rows dropped; 1 rows fixed in memory; 1 duplicate rows removed; problems: duplicate_row 1, "
        "bad_column_count 1, box_clipped 1, image_empty 1"
    )
    assert json.loads(json.dumps(report_to_dict(report)))["problems"][1] == {
        "file": "labels/train/a.txt", "line": 3, "code": "bad_column_count", "action": "row dropped",
        "message": "expected 5 fields (class, centre x, y, width, height), got 4", "severity": "warning",
    }  # fmt: skip


def test_records_are_in_sorted_order_with_boxes_in_pixels(yolo):
    records = yolo.write({"b.jpg": GOOD, "a.jpg": GOOD, "sub/c.jpg": GOOD}).scan()

    assert [record.image.name for record in records.records] == ["a.jpg", "b.jpg", "c.jpg"]
    assert all(record.size == (40, 60) for record in records.records)
    np.testing.assert_allclose(records.records[2].instances.boxes, [[12, 8, 18, 12]], rtol=1e-6)


def test_errors_stop_with_the_first_few_in_full_and_a_report_file(yolo):
    yolo.write({"a.jpg": GOOD + "".join(f"{index} .5 .5 .2 .2\n" for index in range(50, 75))})

    with pytest.raises(DataError) as caught:
        read_split(open_dataset(yolo.yaml), "train", DataConfig())

    text = str(caught.value)
    assert "the train split has 25 problems that must be decided before training" in text
    assert "labels/train/a.txt, line 2: class 50 is outside 0..2; the dataset names 3 classes (row dropped)" in text
    assert text.count("is outside 0..2") == 10
    assert "... and 15 more: class_out_of_range 25" in text
    with open(text.rsplit("full report: ")[1], encoding="utf-8") as file:  # noqa: PTH123
        assert len(json.load(file)["problems"]) == 25


def test_strict_turns_warnings_into_errors_but_not_notes(yolo):
    yolo.write({"a.jpg": GOOD, "b.jpg": None, "c.jpg": GOOD + "0 .5 .5 .2\n"})
    header = open_dataset(yolo.yaml)

    assert len(read_split(header, "train", DataConfig()).records) == 3
    with pytest.raises(DataError, match=r"1 problem .*\n.*c.txt, line 2: expected 5 fields"):
        read_split(header, "train", DataConfig(strict=True))
    yolo.label("train/c.txt", GOOD)
    assert len(read_split(header, "train", DataConfig(strict=True)).records) == 3


def test_unknown_split_is_explained(yolo):
    yolo.write({"a.jpg": GOOD})

    with pytest.raises(DataError, match="there is no test split; it has train, val"):
        yolo.scan("test")


def test_progress_counts_up_to_the_number_of_images(yolo):
    yolo.write({f"{index}.jpg": GOOD for index in range(70)})
    seen = []

    read_split(open_dataset(yolo.yaml), "train", DataConfig(), lambda done, total: seen.append((done, total)))

    assert seen == [(64, 70), (70, 70)]


def test_a_damaged_dataset_is_left_exactly_as_it_was(yolo, voc, make_object, encode, make_picture, tree_hash):
    yolo.write({"a.jpg": GOOD * 2 + "9 .5 .5 .2 .2\n", "b.jpg": "\ufeff0 1.5 0 0 0", "c.jpg": None})
    whole = encode(make_picture())
    for name, data in (("cut", whole[:500]), ("noend", whole[:-2]), ("tail", whole + b"x"), ("text", b"hi")):
        yolo.image(f"train/{name}.jpg", data)
    voc.write({"a": make_object((30, 5, 5, 30)), "b": "<object>"})
    before = tree_hash(yolo.root), tree_hash(voc.root)

    for config in ({}, {"fix": "all", "strict": True}, {"fingerprint": "content"}):
        yolo.scan(**config)
        voc.scan(**config)

    assert (tree_hash(yolo.root), tree_hash(voc.root)) == before


def test_real_data_is_left_exactly_as_it_was(shared_data, tree_hash):
    folder = shared_data("coco-mini")
    before = tree_hash(folder)

    header = open_dataset(folder / "object_detection")
    for split in header.splits:
        read_split(header, split, DataConfig())

    assert tree_hash(folder) == before


def test_config_is_a_component():
    config = DataConfig(source="x", names=("a", "b"), imgsz=320, cache="ram")

    assert from_dict(DataConfig, to_dict(config)) == config
    assert override(config, ["image.alpha=composite", "fix=clip"]).image.alpha == "composite"
    with pytest.raises(ConfigError, match="voc_offset"):
        override(config, ["voc_offset=other"])


def test_formats_are_one_list_with_different_names():
    assert [form.name for form in FORMATS] == ["voc", "coco", "dota", "widerface", "crowdhuman", "yolo", "folder"]
    assert all(format_named(form.name) is form for form in FORMATS)


def test_reading_and_checking_import_no_torch():
    modules = "checks, dataset, formats, images, sample, report"
    imports = f"from boxwright.datasets import {modules}; from boxwright.loading import image_store"
    script = f"import sys; {imports}; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
