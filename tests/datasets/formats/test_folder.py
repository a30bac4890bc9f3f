# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Classification folders."""

import pytest

from boxwright.datasets.checks import check_dataset
from boxwright.datasets.dataset import DataConfig, scan_split
from boxwright.datasets.formats import open_dataset
from boxwright.errors import DataError


@pytest.fixture
def folder(tmp_path, encode, make_picture):
    def write(*names):
        for number, name in enumerate(names):
            path = tmp_path / "set" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode(make_picture(seed=number)))
        return tmp_path / "set"

    return write


def test_classes_are_the_sorted_folders_of_train(folder):
    root = folder("train/dog/a.jpg", "train/cat/b.jpg", "train/cat/deep/c.jpg", "val/cat/d.jpg", "val/dog/e.jpg")

    header = open_dataset(root)
    records = scan_split(header, "train", DataConfig(task="classify"))

    assert (header.format, header.task, header.names, header.exclusive) == ("folder", "classify", ("cat", "dog"), True)
    assert [(record.image.name, record.image_label) for record in records.records] == [
        ("b.jpg", 0),
        ("c.jpg", 0),
        ("a.jpg", 1),
    ]
    assert dict(records.report.per_class_counts) == {"cat": 2, "dog": 1}
    assert records.report.problems == ()


def test_labels_come_from_the_cache_unchanged(folder):
    root = folder("train/dog/a.jpg", "train/cat/b.jpg", "val/cat/d.jpg", "val/dog/e.jpg")

    twice = [scan_split(open_dataset(root), "train", DataConfig()) for _ in range(2)]

    assert [[record.image_label for record in records.records] for records in twice] == [[0, 1]] * 2


def test_missing_classes_are_warned_about_and_extra_ones_refused(folder):
    root = folder("train/dog/a.jpg", "train/cat/b.jpg", "validation/cat/d.jpg")
    header = open_dataset(root)
    assert [(p.code, p.message) for p in header.problems] == [
        ("class_folder_missing", "1 of 2 classes have no folder in val: dog")
    ]
    folder("validation/cow/e.jpg")
    with pytest.raises(DataError, match="cow: not among the classes of train; expected cat, dog"):
        open_dataset(root)


def test_test_stands_in_for_val(folder):
    root = folder("train/dog/a.jpg", "train/cat/b.jpg")
    with pytest.raises(DataError, match="there is no val folder"):
        open_dataset(root)
    folder("test/cat/d.jpg", "test/dog/e.jpg")
    header = open_dataset(root)
    assert [problem.code for problem in header.problems] == ["test_as_val"]
    assert header.splits["val"] == header.splits["test"]


def test_damaged_images_are_dropped_and_counted(folder):
    root = folder("train/dog/a.jpg", "train/cat/b.jpg", "val/cat/d.jpg", "val/dog/e.jpg")
    (root / "train/cat/broken.jpg").write_bytes(b"text")

    check = check_dataset(root)

    assert check.ok
    assert check.to_dict()["task"] == "classify"
    assert (check.reports["train"].images, check.reports["train"].corrupt) == (2, 1)
    assert check.statistics["train"].class_counts == (1, 1)
    assert check.statistics["train"].backgrounds == 0
