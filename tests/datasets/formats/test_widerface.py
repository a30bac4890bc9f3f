# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""WIDER FACE annotations. Images are 40 px high, 60 wide."""

import pytest

from boxwright.datasets.dataset import DataConfig, scan_split
from boxwright.datasets.formats import open_dataset

NAMES = ("0--Parade/a.jpg", "0--Parade/b.jpg", "1--Ball/c.jpg")
TEXT = """0--Parade/a.jpg
3
10 5 20 15 0 0 0 0 0 0
1 1 5 5 0 0 0 1 0 0
3 3 0 0 0 0 0 0 0 0
0--Parade/b.jpg
0
0 0 0 0 0 0 0 0 0 0
1--Ball/c.jpg
1
2 2 4 4 2 1 1 0 2 1
"""


@pytest.fixture
def wider(tmp_path, encode, make_picture):
    root = tmp_path / "wider"
    (root / "wider_face_split").mkdir(parents=True)
    for number, (part, name) in enumerate((part, name) for part in ("train", "val") for name in NAMES):
        path = root / f"WIDER_{part}/images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(make_picture(seed=number)))
        (root / f"wider_face_split/wider_face_{part}_bbx_gt.txt").write_text(TEXT)
    return root


def scan(source, split="train", **choices):
    return scan_split(open_dataset(source), split, DataConfig(**choices))


def test_faces_are_boxes_and_invalid_ones_ignore_regions(wider):
    header, records = open_dataset(wider), scan(wider)

    assert (header.format, header.names, list(header.splits)) == ("widerface", ("face",), ["train", "val"])
    first, second, third = (record.instances for record in records.records)
    assert first.boxes.tolist() == [[10, 5, 30, 20]]
    assert (first.ignore.tolist(), first.ignore_labels.tolist()) == ([[1, 1, 6, 6]], [0])
    assert len(second) == 0
    assert third.boxes.tolist() == [[2, 2, 6, 6]]
    assert [(p.code, p.line) for p in records.report.problems] == [("zero_area", 5)]
    assert records.report.empty == 1


def test_one_file_finds_its_sibling_and_images(wider):
    file = wider / "wider_face_split/wider_face_train_bbx_gt.txt"

    assert open_dataset(file).splits["val"][0].name == "wider_face_val_bbx_gt.txt"
    assert [len(scan(file, split).records) for split in ("train", "val")] == [3, 3]


def test_bad_lines_are_named_and_the_next_image_is_read(wider):
    file = wider / "wider_face_split/wider_face_train_bbx_gt.txt"
    file.write_text(
        "stray\n" + TEXT.replace("\n3\n", "\nmany\n").replace("1 1 5 5 0", "1 1 x 5 0") + "../evil.jpg\n0\n"
    )

    problems = scan(wider).report.problems

    # 'many' is no count; it is then read as a row of its own
    assert [p.code for p in problems] == [
        "bad_path",
        "bad_count",
        "bad_path",
        "not_a_number",
        "not_a_number",
        "zero_area",
    ]
    assert [p.severity for p in problems if p.code == "bad_path"] == ["warning", "error"]


def test_wrong_counts_are_named(wider):
    file = wider / "wider_face_split/wider_face_train_bbx_gt.txt"
    file.write_text(TEXT.replace("\n3\n", "\n2\n"))

    (count, _) = scan(wider).report.problems

    assert (count.code, count.message) == ("bad_count", "0--Parade/a.jpg: 2 faces are announced, 3 rows follow")


def test_what_a_row_tells_beside_its_box_is_counted_as_left_out(wider):
    told = {f"values of {name}": 2 for name in ("blur", "expression", "illumination", "occlusion", "pose")}

    assert dict(scan(wider).report.left_out) == told  # of the two faces; the invalid one is a region


def test_a_row_of_a_box_alone_leaves_nothing_out(wider):
    file = wider / "wider_face_split/wider_face_train_bbx_gt.txt"
    file.write_text("0--Parade/a.jpg\n1\n10 5 20 15\n")

    report = scan(wider).report
    assert (report.rows, dict(report.left_out)) == (1, {})
