# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""`boxwright check`: findings, statistics, and spec/datasets case 60."""

import json

import numpy as np
import pytest

from boxwright.datasets.checks import check_dataset, class_table
from boxwright.datasets.dataset import DataConfig

GOOD = "1 0.25 0.25 0.1 0.1\n"


def codes(check):
    return [problem.code for problem in check.problems]


def test_a_good_dataset_is_ok_and_counted(yolo):
    yolo.write({"a.jpg": GOOD + "0 .5 .5 .5 .5\n", "b.jpg": "2 .5 .5 .2 .3\n", "c.jpg": ""}, val={"v.jpg": GOOD})
    seen = []

    check = check_dataset(yolo.yaml, on_progress=lambda *state: seen.append(state))

    assert check.ok
    assert check.problems == ()
    train = check.statistics["train"]
    assert (train.images, train.backgrounds, train.boxes, train.class_counts) == (3, 1, 3, (1, 1, 1))
    assert dict(train.image_sizes) == {(40, 60): 3}
    assert train.boxes_per_image == (1.0, 2)
    # sides sqrt(6 * 4), sqrt(30 * 20), sqrt(12 * 12) px; the middle one is 12
    np.testing.assert_allclose(train.box_sides[1], 12, rtol=1e-6)
    names, counts = class_table(check)
    assert names == ("cat", "dog", "traffic light")
    assert {split: numbers.tolist() for split, numbers in counts.items()} == {"train": [1, 1, 1], "val": [0, 1, 0]}
    assert seen == [("train", 3, 3), ("val", 1, 1)]
    assert json.loads(json.dumps(check.to_dict()))["statistics"]["val"]["boxes"] == 1


def test_case60_shared_files_and_equal_bytes_between_splits_are_warned_about(yolo):
    yolo.write({"a.jpg": GOOD, "b.jpg": GOOD, "c.jpg": GOOD}, val={"v.jpg": GOOD, "w.jpg": GOOD})
    (yolo.root / "images/val/w.jpg").write_bytes((yolo.root / "images/train/b.jpg").read_bytes())
    (yolo.root / "images/val/x.jpg").symlink_to(yolo.root / "images/train/c.jpg")
    (yolo.root / "labels/val/x.txt").write_text(GOOD)

    check = check_dataset(yolo.yaml)

    found = {problem.code: problem for problem in check.problems if problem.severity == "warning"}
    assert "1 images are in both splits" in found["splits_share_files"].message
    assert found["splits_share_files"].message.endswith(": c.jpg")
    assert found["splits_share_content"].message == "1 images have equal bytes in both splits: b.jpg = w.jpg"
    assert check.ok
    assert not check_dataset(yolo.yaml, DataConfig(strict=True)).ok


def test_case60_val_equal_to_train_is_one_warning(yolo):
    yolo.write({f"{index}.jpg": GOOD for index in range(8)})
    yolo.yaml.write_text("train: images/train\nval: images/train\nnames: [cat, dog]\n")

    (problem,) = [problem for problem in check_dataset(yolo.yaml).problems if problem.severity == "warning"]

    assert problem.code == "splits_share_files"
    assert "8 images are in both splits" in problem.message


def test_every_split_is_read_even_when_one_is_wrong(yolo):
    yolo.write({"a.jpg": "7 .5 .5 .2 .2\n" + GOOD}, val={"v.jpg": GOOD + "0 .5 .5 0 .2\n"})

    check = check_dataset(yolo.yaml)

    assert not check.ok
    assert codes(check)[:2] == ["class_out_of_range", "zero_area"]
    assert check.reports["val"].rows_dropped == 1


@pytest.mark.parametrize("text", ["train: a\nval: b\n", "names: [a]\ntrain: x\nval: y\n"])
def test_a_dataset_that_cannot_be_opened_is_a_result_not_an_exception(yolo, text):
    yolo.write({"a.jpg": GOOD}).yaml.write_text(text)

    check = check_dataset(yolo.yaml)

    assert not check.ok
    assert (check.header, codes(check)) == (None, ["cannot_read"])
    assert class_table(check) == ((), {})
    json.dumps(check.to_dict())


def test_an_unreadable_list_is_reported_beside_the_other_splits(yolo):
    yolo.write({"a.jpg": GOOD})
    (yolo.root / "list.txt").write_bytes(b"\xff\xfe\x00")
    yolo.yaml.write_text("train: list.txt\nval: images/val\nnames: [cat, dog]\n")

    check = check_dataset(yolo.yaml)

    assert "not UTF-8" in check.problems[0].message
    assert list(check.statistics) == ["val"]


def test_classes_without_training_objects_are_noted(yolo):
    yolo.write({"a.jpg": GOOD})

    (problem,) = check_dataset(yolo.yaml).problems

    assert (problem.code, problem.severity) == ("class_without_objects", "note")
    assert "2 of 3 classes have no object in the train split: cat, traffic light" in problem.message


def test_real_bccd_names_the_two_zero_area_boxes(shared_data):
    check = check_dataset(shared_data("bccd"))

    assert check.ok
    assert sorted((problem.file, problem.message) for problem in check.problems) == [
        (
            "Annotations/BloodImage_00338.xml",
            "object 13 (RBC): the box has zero area: xmin 504, ymin 337, xmax 504, ymax 337",
        ),
        (
            "Annotations/BloodImage_00343.xml",
            "object 4 (RBC): the box has zero area: xmin 181, ymin 329, xmax 181, ymax 329",
        ),
    ]
    assert {split: numbers.images for split, numbers in check.statistics.items()} == {
        "train": 205,
        "val": 87,
        "test": 72,
    }


def test_labels_are_checked_for_the_task_of_the_dataset(yolo):
    yolo.write(
        {"a.jpg": "0 .5 .5 .2 .2 1.5 .5 2\n"}, val={"v.jpg": "0 .5 .5 .2 .2 .5 .5 2\n"}, extra="kpt_shape: [1, 3]\n"
    )

    check = check_dataset(yolo.yaml)

    assert "keypoint_out_of_range" in codes(check)
    assert check.to_dict()["task"] == "pose"


def test_a_task_that_the_labels_cannot_hold_is_a_finding(yolo):
    yolo.write({"a.jpg": GOOD})

    check = check_dataset(yolo.yaml, DataConfig(task="pose"))

    assert codes(check) == ["cannot_read", "cannot_read"]
    assert not check.ok


@pytest.mark.parametrize("name", ["coco-mini/instance_segmentation", "coco-keypoints", "dota-mini"])
def test_real_data_of_every_task_can_be_trained_on(shared_data, name):
    assert check_dataset(shared_data(name)).ok
