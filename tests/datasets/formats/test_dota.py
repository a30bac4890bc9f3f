# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""DOTA text labels: spec/datasets 5 and case 70. Images are 40 px high, 60 wide."""

import pytest

from boxwright.datasets.dataset import DataConfig, scan_split
from boxwright.datasets.formats import open_dataset
from boxwright.datasets.formats.dota import DOTA_NAMES
from boxwright.errors import DataError

ROW = "10 5 30 5 30 20 10 20 ship 0\n"


@pytest.fixture
def dota(tmp_path, encode, make_picture):
    class DotaSet:
        root = tmp_path / "dota"

        def write(self, folder, labels):
            for number, (name, text) in enumerate(labels.items()):
                for place in ("images", "labelTxt"):
                    (self.root / folder / place).mkdir(parents=True, exist_ok=True)
                (self.root / folder / f"images/{name}.png").write_bytes(encode(make_picture(seed=number), "PNG"))
                if text is not None:
                    (self.root / folder / f"labelTxt/{name}.txt").write_text(text)
            return self

        def scan(self, split="train", **choices):
            return scan_split(open_dataset(self.root), split, DataConfig(**{"task": "obb", **choices}))

    return DotaSet()


def found(records):
    return [problem.code for problem in records.report.problems]


def test_corners_classes_and_header_lines(dota):
    dota.write("train", {"a": "imagesource:GoogleEarth\ngsd:0.146\n" + ROW}).write("val", {"b": ROW})

    header, records = open_dataset(dota.root), dota.scan()

    assert (header.task, header.names, list(header.splits)) == ("obb", DOTA_NAMES[:15], ["train", "val"])
    instances = records.records[0].instances
    assert instances.corners.tolist() == [[[10, 5], [30, 5], [30, 20], [10, 20]]]
    assert instances.boxes.tolist() == [[10, 5, 30, 20]]
    assert header.names[instances.labels[0]] == "ship"
    assert (records.report.rows, records.report.problems) == (1, ())


def test_without_splits_everything_is_used_for_both_and_that_is_said(dota):
    dota.write(".", {"a": ROW, "b": ""})
    (dota.root / "labelTxt/ghost.txt").write_text("")

    header = open_dataset(dota.root)

    assert list(header.splits) == ["train", "val"]
    assert [problem.code for problem in header.problems] == ["no_val_split"]
    records = dota.scan("val")
    assert (len(records.records), records.report.empty) == (2, 1)
    assert found(records) == ["orphan_label"]


def test_difficult_objects_follow_the_policy(dota):
    dota.write(".", {"a": ROW + ROW.replace("10 5 30", "11 5 30").replace(" 0\n", " 1\n")})

    skipped, kept = dota.scan(), dota.scan(skip_difficult=False)

    assert [(p.code, p.severity) for p in skipped.report.problems] == [("difficult", "note")]
    assert [len(records.records[0].instances) for records in (skipped, kept)] == [1, 2]


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ("10 5 30 5 30 20 10 ship", "bad_column_count"),
        ("10 5 30 5 30 20 10 x ship 0", "not_a_number"),
        ("10 5 30 5 30 20 10 nan ship 0", "not_finite"),
        ("10 5 10 5 30 20 10 5 ship 0", "polygon_too_short"),
        ("10 5 20 5 30 5 40 5 ship 0", "zero_area"),
        ("300 5 320 5 320 20 300 20 ship 0", "coord_out_of_range"),
    ],
)
def test_case70_bad_rows_are_dropped_alone(dota, row, code):
    records = dota.write(".", {"a": ROW + row + "\n"}).scan()

    (problem,) = records.report.problems
    assert (problem.code, problem.line, problem.file) == (code, 2, "labelTxt/a.txt")
    assert len(records.records[0].instances) == 1


def test_case70_unknown_classes_are_errors_and_fix_skip_drops_them(dota):
    dota.write(".", {"a": ROW + ROW.replace("ship", "buoy")})

    assert [(p.code, p.severity) for p in dota.scan().report.problems] == [("class_unknown", "error")]
    assert [p.severity for p in dota.scan(fix="skip").report.problems] == ["warning"]


def test_classes_of_other_data_come_from_the_labels_or_a_list(dota):
    dota.write(".", {"a": ROW.replace("ship", "red car") + ROW.replace("ship 0", "bus")})
    assert open_dataset(dota.root).names == ("bus", "red car")
    assert dota.scan().records[0].instances.labels.tolist() == [1, 0]

    (dota.root / "classes.txt").write_text("red car\nbus\n")
    assert open_dataset(dota.root).names == ("red car", "bus")
    assert open_dataset(dota.root, ("bus", "red car")).names == ("bus", "red car")


def test_later_versions_have_more_classes(dota):
    dota.write(".", {"a": ROW.replace("ship", "helipad")})
    assert open_dataset(dota.root).names == DOTA_NAMES


def test_without_any_class_or_images_it_is_explained(dota):
    dota.write(".", {"a": ""})
    with pytest.raises(DataError, match="no label names a class"):
        open_dataset(dota.root)
    (dota.root / "images").rename(dota.root / "pictures")
    (dota.root / "labelTxt/a.txt").write_text(ROW)
    with pytest.raises(DataError, match="images: there is no such folder"):
        dota.scan()


def test_duplicates_are_dropped(dota):
    records = dota.write(".", {"a": ROW + ROW}).scan()

    assert (found(records), records.report.duplicates) == (["duplicate_row"], 1)
    assert "the same object as in line 1" in records.report.problems[0].message


def test_real_dota_opens_as_it_lies(shared_data):
    header = open_dataset(shared_data("dota-mini"))

    records = scan_split(header, "train", DataConfig(task="obb", skip_difficult=False))

    assert header.names[:2] == ("plane", "ship")
    # The picture is 285 x 294 px; the objects of three rows lie outside it.
    assert (records.report.rows, sum(len(record.instances) for record in records.records)) == (4, 1)
    assert found(records).count("orphan_label") == 1


def test_the_flag_of_a_difficult_object_that_is_used_is_left_out(dota):
    dota.write(".", {"a": ROW + ROW.replace("10 5 30", "11 5 30").replace(" 0\n", " 1\n")})

    flag = {"difficult flags (their objects became ordinary ones)": 1}
    assert [dict(dota.scan(skip_difficult=skip).report.left_out) for skip in (True, False)] == [{}, flag]
