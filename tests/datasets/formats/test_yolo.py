# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""YOLO labels: one test for each case of malformed input (spec/datasets 7) that concerns them."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest

from boxwright.datasets.dataset import DataConfig, read_split
from boxwright.datasets.formats import open_dataset
from boxwright.datasets.formats.yolo import label_path
from boxwright.datasets.formats.yolo_rows import RowRules, _read_carefully, _read_clean, read_rows
from boxwright.errors import DataError
from boxwright.vocabulary import KeypointSpec

GOOD = "1 0.25 0.25 0.1 0.1"
RULES = RowRules({0: 0, 1: 1, 2: 2}, ("cat", "dog", "traffic light"), None, DataConfig())


def rows(text, rules=RULES):
    return read_rows(text if isinstance(text, bytes) else text.encode(), "a.txt", (40, 60), rules)


def with_config(**choices):
    return RowRules(RULES.class_ids, RULES.names, None, DataConfig(**choices))


def codes(labels):
    return [problem.code for problem in labels.problems]


DROPPED = [
    pytest.param("0 -0.1 .5 .2 .2", "coord_out_of_range", "centre x is -0.1", id="case01-negative"),
    pytest.param("0 -0.005 .5 .2 .2", "coord_out_of_range", "data.fix=clip", id="case01-slightly-negative"),
    pytest.param("0 .5 1.2 .2 .2", "coord_out_of_range", "centre y is 1.2", id="case02-above-one"),
    pytest.param("0 300 200 20 20", "coord_out_of_range", "not pixels", id="case02-pixels"),
    pytest.param("0 .5 nan .2 .2", "not_finite", "field 3", id="case05-nan"),
    pytest.param("0 .5 .5 inf .2", "not_finite", "field 4", id="case06-infinity"),
    pytest.param("0 .5 .5 0 .2", "zero_area", "width 0", id="case08-zero-width"),
    pytest.param("0 .5 .5 .2 0.0", "zero_area", "height 0", id="case08-zero-height"),
    pytest.param("0 .5 .5 1e-300 1e-300", "zero_area", "zero area", id="case08-too-thin-for-floats"),
    pytest.param("0 .5 .5 1e-9 .5", "zero_area", "zero area", id="case08-too-thin-for-pixels"),
    pytest.param("0 .5 .5 .2", "bad_column_count", "expected 5 fields", id="case09-four-fields"),
    pytest.param("0 .5 .5 .2 .2 .9", "looks_like_predictions", "drop_confidence", id="case10-confidence"),
    pytest.param("0 .1 .1 .2 .2 .3 .3 .4", "odd_polygon", "got 7", id="case12-odd-polygon"),
    pytest.param("0 .1 .1 .2 .2 .1 .1", "polygon_too_short", "3 different", id="case13-two-points"),
    pytest.param("0 .1 .1 .2 .2 .3 .3", "zero_area", "one line", id="case13-flat-polygon"),
    pytest.param("-1 .5 .5 .2 .2", "class_negative", "class -1", id="case17-negative-class"),
    pytest.param("1.7 .5 .5 .2 .2", "class_not_integer", "class 1.7", id="case18-fractional-class"),
    pytest.param("bird .5 .5 .2 .2", "class_not_a_number", "'bird'", id="case19-unknown-name"),
    pytest.param("0,0.5,0.5,0.2,0.2", "comma_separated", "by spaces", id="case28-commas"),
    pytest.param("0, 0.5, 0.5, 0.2, 0.2", "comma_separated", "by spaces", id="case28-commas-and-spaces"),
    pytest.param("0 0,5 0,5 0,2 0,2", "decimal_comma", "decimal point", id="case29-decimal-comma"),
    pytest.param("0 .5 x .2 .2", "not_a_number", "field 3", id="word"),
    pytest.param("0 1_0 .5 .2 .2", "not_a_number", "field 2", id="underscore"),
]


@pytest.mark.parametrize(("bad", "code", "words"), DROPPED)
def test_bad_row_is_dropped_alone_and_named(bad, code, words):
    labels = rows(f"{GOOD}\n{bad}\n0 .5 .5 .2 .2\n")

    assert labels.instances.labels.tolist() == [1, 0]
    (problem,) = labels.problems
    assert (problem.file, problem.line, problem.code, problem.action) == ("a.txt", 2, code, "row dropped")
    assert problem.severity == "warning"
    assert words in problem.message
    assert (labels.rows, labels.dropped) == (3, 1)


def test_case01_fix_clip_moves_a_slightly_negative_coordinate_to_zero():
    labels = rows("0 -0.005 .5 .2 .2\n0 -0.02 .5 .2 .2", with_config(fix="clip"))

    assert labels.instances.boxes.tolist() == [[0, 16, 6, 24]]  # centre 0, width 0.2 of 60 px, left half cut
    assert codes(labels) == ["coord_clipped", "box_clipped", "coord_out_of_range"]
    assert (labels.fixed, labels.dropped) == (1, 1)


def test_case03_coordinate_just_above_one_is_clipped_with_a_warning():
    labels = rows("0 .5 .5 1.005 1")

    assert labels.instances.boxes.tolist() == [[0, 0, 60, 40]]
    assert [(p.code, p.action, p.severity) for p in labels.problems] == [("coord_clipped", "clipped", "warning")]
    assert labels.fixed == 1


def test_case04_box_leaving_the_image_is_clipped_and_warned_about():
    labels = rows("0 .95 .5 .2 .5")

    np.testing.assert_allclose(labels.instances.boxes, [[51, 10, 60, 30]], rtol=1e-6)
    assert codes(labels) == ["box_clipped"]
    assert "25 %" in labels.problems[0].message


def test_case04_rounding_at_the_border_is_clipped_without_a_word():
    labels = rows("0 .75 .5 .500002 .5")

    assert labels.instances.boxes[0, 2] == 60
    assert labels.problems == ()


def test_case07_exact_duplicates_are_removed_in_file_order():
    labels = rows("1 .5 .5 .2 .2\n0 .5 .5 .2 .2\n1 0.50 .5 .2 .2\n0 .1 .1 .1 .1")

    assert labels.instances.labels.tolist() == [1, 0, 0]
    assert labels.duplicates == 1
    assert (labels.problems[0].code, labels.problems[0].line) == ("duplicate_row", 3)
    assert "line 1" in labels.problems[0].message


def test_case10_drop_confidence_uses_the_first_five_fields():
    labels = rows("0 .5 .5 .2 .2 .9", with_config(drop_confidence=True))

    np.testing.assert_allclose(labels.instances.boxes, [[24, 16, 36, 24]], rtol=1e-6)


def test_case11_rows_of_different_length_lose_only_the_bad_one():
    labels = rows("0 .5 .5 .2 .2\n0 .5 .5 .2")

    assert len(labels.instances) == 1
    assert (labels.problems[0].line, labels.problems[0].code) == (2, "bad_column_count")


def test_case14_boxes_and_polygons_may_be_mixed():
    labels = rows("0 .5 .5 .2 .2\n1 .1 .1 .5 .1 .5 .75 .3 .9")

    np.testing.assert_allclose(labels.instances.boxes, [[24, 16, 36, 24], [6, 4, 30, 36]], rtol=1e-6)
    assert labels.problems == ()


def test_case15_class_equal_to_the_number_of_classes_is_an_error_even_when_skipping():
    for rules in (RULES, with_config(fix="skip")):
        labels = rows("3 .5 .5 .2 .2", rules)
        assert [(p.code, p.severity) for p in labels.problems] == [("class_equals_count", "error")]
        assert "class 3 is outside 0..2; the dataset names 3 classes" in labels.problems[0].message


def test_case16_class_beyond_is_an_error_and_fix_skip_drops_it():
    assert [(p.code, p.severity) for p in rows("9 .5 .5 .2 .2").problems] == [("class_out_of_range", "error")]
    skipped = rows("9 .5 .5 .2 .2\n" + GOOD, with_config(fix="skip"))
    assert [(p.code, p.severity) for p in skipped.problems] == [("class_out_of_range", "warning")]
    assert len(skipped.instances) == 1


def test_case16_an_id_in_a_gap_is_out_of_range():
    rules = RowRules({1: 0, 5: 1}, ("a", "b"), None, DataConfig())

    labels = rows("5 .5 .5 .2 .2\n3 .5 .5 .2 .2", rules)

    assert labels.instances.labels.tolist() == [1]
    assert "class 3 is not one of the 2 class ids" in labels.problems[0].message


def test_case19_class_names_are_resolved():
    labels = rows("dog .5 .5 .2 .2\ntraffic light .5 .5 .3 .3")

    assert labels.instances.labels.tolist() == [1, 2]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="case20-empty"),
        pytest.param(" \n\t\n", id="case21-whitespace"),
    ],
)
def test_file_without_rows_is_background(text, yolo):
    records = yolo.write({"a.jpg": text, "b.jpg": GOOD}).scan()

    assert [len(record.instances) for record in records.records] == [0, 1]
    assert (records.report.empty, records.report.missing, records.report.problems) == (1, 0, ())


def test_case22_missing_label_files_are_background_and_counted(yolo):
    records = yolo.write({"a.jpg": GOOD, "b.jpg": None, "c.jpg": GOOD}).scan()

    assert (records.report.images, records.report.missing, records.report.labels_found) == (3, 1, 2)
    (problem,) = records.report.problems
    assert (problem.code, problem.severity) == ("labels_missing", "note")
    assert "labels/train/b.txt" in problem.message


def test_case22_more_than_half_missing_is_an_error_unless_allowed(yolo):
    yolo.write({"a.jpg": GOOD, "b.jpg": None, "c.jpg": None})

    header = open_dataset(yolo.yaml)
    with pytest.raises(DataError, match=r"2 of 3 images have no label file .* labels folder beside"):
        read_split(header, "train", DataConfig())
    assert len(read_split(header, "train", DataConfig(allow_missing=True)).records) == 3


CLEAN = "0 0.5 0.5 0.2 0.2\n1 0.25 0.25 0.1 0.1\n"
READ_AS_CLEAN = [
    pytest.param(CLEAN.replace("\n", "\n  \t \n").encode(), [], id="case23-blank-lines"),
    pytest.param(b"\xef\xbb\xbf" + CLEAN.encode(), [], id="case24-bom"),
    pytest.param(CLEAN.replace("\n", "\r\n").encode(), [], id="case25-crlf"),
    pytest.param(CLEAN.encode("utf-16"), ["utf16"], id="case27-utf16"),
    pytest.param(CLEAN.replace(" ", "\t ").replace("1 ", "1.0 ").strip().encode(), [], id="tabs-no-last-newline"),
    pytest.param(CLEAN.replace("0.25", "2.5e-1").encode(), [], id="scientific"),
]


@pytest.mark.parametrize(("data", "expected"), READ_AS_CLEAN)
def test_harmless_differences_give_the_same_boxes(data, expected):
    labels = rows(data)

    np.testing.assert_array_equal(labels.instances.boxes, rows(CLEAN).instances.boxes)
    assert labels.instances.labels.tolist() == [0, 1]
    assert codes(labels) == expected


def test_case26_row_with_other_bytes_is_dropped_and_the_rest_kept():
    labels = rows(b"caf\xe9 .5 .5 .2 .2\n0 .5 .5 .2 .2\n")

    assert len(labels.instances) == 1
    assert (labels.problems[0].line, labels.problems[0].code) == (1, "undecodable")
    assert "0xe9" in labels.problems[0].message


def test_case30_pose_rows_give_their_box_and_wrong_lengths_are_dropped():
    rules = RowRules(RULES.class_ids, RULES.names, KeypointSpec(count=2), DataConfig())

    labels = rows("0 .5 .5 .2 .2 .5 .5 2 .4 .4 1\n0 .5 .5 .2 .2\n0 .5 .5 .2 .2 .5 .5 2 .4", rules)

    assert labels.instances.boxes.shape == (2, 4)
    assert "expected 5 or 5 + 2 x 3 = 11 fields, got 9" in labels.problems[0].message


def test_case37_labels_without_an_image_are_reported(yolo):
    yolo.write({"a.jpg": GOOD}).label("train/ghost.txt", GOOD)

    (problem,) = yolo.scan().report.problems

    assert (problem.code, problem.file) == ("orphan_label", "labels/train/ghost.txt")


@pytest.mark.parametrize(
    "name",
    ["ü b.jpg", "日本語.jpg", "😀.jpg", "x" * 240 + ".jpg", "a.b.c.jpg"],
    ids=["accent", "cjk", "emoji", "long", "dots"],
)
def test_case50_any_file_name_works(name, yolo):
    records = yolo.write({name: GOOD}).scan()

    assert [len(record.instances) for record in records.records] == [1]
    assert records.report.problems == ()


def test_case50_composed_and_decomposed_accents_pair(yolo):
    name = unicodedata.normalize("NFD", "é")
    yolo.write({f"{name}.jpg": None}).label("train/" + unicodedata.normalize("NFC", "é") + ".txt", GOOD)

    records = yolo.scan()

    assert [len(record.instances) for record in records.records] == [1]
    assert records.report.problems == ()


def test_case51_two_images_that_share_a_label_file_are_warned_about(yolo, encode, make_picture):
    yolo.write({"a.jpg": GOOD}).image("train/a.png", encode(make_picture(), "PNG"))

    records = yolo.scan()

    assert len(records.records) == 2
    assert [problem.code for problem in records.report.problems] == ["same_stem"]


def test_case52_given_links_are_followed_and_nested_ones_are_not(yolo, tmp_path):
    yolo.write({"a.jpg": GOOD})
    moved = yolo.root.parent / "elsewhere"
    (yolo.root / "images").rename(moved)
    (yolo.root / "images").symlink_to(moved, target_is_directory=True)  # part of the path that the YAML names
    other = tmp_path / "other"
    other.mkdir()
    (other / "b.jpg").write_bytes((moved / "train/a.jpg").read_bytes())
    (moved / "train" / "nested").symlink_to(other, target_is_directory=True)
    (moved / "train" / "loop").symlink_to(moved / "train", target_is_directory=True)
    (moved / "train" / "c.jpg").symlink_to(other / "b.jpg")

    records = yolo.scan()

    assert [record.image.name for record in records.records] == ["a.jpg"]
    assert len(records.records[0].instances) == 1  # paired on the path as named, not as resolved
    found = {problem.file: problem.code for problem in records.report.problems}
    assert found == {
        "images/train/loop": "link_not_followed",
        "images/train/nested": "link_not_followed",
        "images/train/c.jpg": "link_outside",
    }
    followed = yolo.scan(follow_links=True, allow_missing=True)
    assert [record.image.name for record in followed.records] == ["a.jpg", "c.jpg", "b.jpg"]


def test_links_checked_out_as_text_files_are_followed(yolo):
    yolo.write({"a.jpg": GOOD})
    (yolo.root / "images").rename(yolo.root.parent / "pictures")
    (yolo.root / "images").write_text("../pictures")

    header = open_dataset(yolo.yaml)
    records = read_split(header, "train", DataConfig())

    assert [problem.code for problem in header.problems] == ["link_as_text", "link_as_text"]
    assert records.records[0].image.is_file()
    assert len(records.records[0].instances) == 1


@pytest.mark.parametrize("name", ["set.zip", "set.tar.gz"])
def test_case53_and_54_archives_are_refused(name, tmp_path):
    (tmp_path / name).write_bytes(b"PK\x03\x04")

    with pytest.raises(DataError, match=r"set\..*: archives are not read; unpack it"):
        open_dataset(tmp_path / name)


def test_case62_no_images_and_no_objects_are_errors(yolo):
    yolo.write({"a.jpg": ""})
    (yolo.root / "images/none").mkdir()
    yolo.yaml.write_text("train: images/none\nval: images/train\nnames: [cat]\n")

    header = open_dataset(yolo.yaml)
    with pytest.raises(DataError, match="there are no images for the train split"):
        read_split(header, "train", DataConfig())
    with pytest.raises(DataError, match=r"no object at all; data.allow_empty=true"):
        read_split(header, "val", DataConfig())
    assert len(read_split(header, "val", DataConfig(allow_empty=True)).records) == 1


def test_case72_names_that_differ_by_case_are_warned_about(yolo):
    records = yolo.write({"a.jpg": GOOD, "A.jpg": GOOD}).scan()

    assert [problem.code for problem in records.report.problems] == ["case_clash"]
    assert len(records.records) == 2


def test_case74_objects_beyond_the_cap_are_dropped_with_a_warning():
    text = "".join(f"0 0.5 0.5 {(index + 1) / 20:g} 0.5\n" for index in range(8))

    labels = rows(text, with_config(max_objects=5))

    assert (len(labels.instances), labels.dropped, codes(labels)) == (5, 3, ["too_many_objects"])
    assert "8 objects; only the first 5" in labels.problems[0].message


def test_short_and_careful_reading_agree_on_clean_files():
    generator = np.random.default_rng(0)
    wh = generator.uniform(0.01, 0.4, (200, 2))
    centre = generator.uniform(wh / 2, 1 - wh / 2)
    text = "".join(
        f"{i % 3} {x:.6f} {y:.6f} {w:.6f} {h:.6f}\n" for i, ((x, y), (w, h)) in enumerate(zip(centre, wh, strict=True))
    )

    short = _read_clean(text.encode(), (40, 60), RULES)
    careful = _read_carefully(text.encode(), "a.txt", (40, 60), RULES)

    assert short is not None
    np.testing.assert_array_equal(short.instances.boxes, careful.instances.boxes)
    np.testing.assert_array_equal(short.instances.labels, careful.instances.labels)
    assert careful.problems == ()


def test_boxes_are_pixels_of_the_image():
    np.testing.assert_allclose(rows("2 0.5 0.25 0.5 0.5").instances.boxes, [[15, 0, 45, 20]])


def test_label_path_replaces_the_last_images_folder():
    assert label_path(Path("/d/images/x/images/t/a.b.png")) == Path("/d/images/x/labels/t/a.b.txt")
    assert label_path(Path("/d/pictures/a.png")) == Path("/d/pictures/a.txt")


def test_text_lists_and_labels_beside_images(yolo):
    yolo.write({"a.jpg": GOOD, "b.jpg": GOOD})
    beside = yolo.root / "beside"
    beside.mkdir()
    (beside / "c.jpg").write_bytes((yolo.root / "images/train/a.jpg").read_bytes())
    (beside / "c.txt").write_text(GOOD)
    absolute = yolo.root / "images/train/b.jpg"
    (yolo.root / "list.txt").write_text(
        f"images/train/a.jpg\n\n{absolute}\n./beside/c.jpg\nimages/train/a.jpg\nbeside/no.jpg\n"
    )
    yolo.yaml.write_text("train: list.txt\nval: [images/val, beside/c.jpg]\nnames: [cat, dog]\n")

    train, val = yolo.scan(), yolo.scan("val")

    assert [record.image.name for record in train.records] == ["c.jpg", "a.jpg", "b.jpg"]
    assert all(len(record.instances) == 1 for record in train.records)
    found = [(problem.code, problem.file, problem.line) for problem in train.report.problems]
    assert found == [("duplicate_image", "list.txt", 5), ("image_missing", "beside/no.jpg", None)]
    assert [record.image.name for record in val.records] == ["c.jpg", "v.jpg"]


def test_folder_without_yaml_uses_classes_txt_or_the_labels(yolo):
    yolo.write({"a.jpg": "4 .5 .5 .2 .2"})
    yolo.yaml.unlink()

    made_up = open_dataset(yolo.root)
    assert made_up.names == ("class_0", "class_1", "class_2", "class_3", "class_4")
    assert [problem.code for problem in made_up.problems] == ["names_missing"]

    (yolo.root / "classes.txt").write_text("cat\ndog\n\n")
    named = open_dataset(yolo.root)
    assert (named.names, named.format) == (("cat", "dog"), "yolo")
    assert set(named.splits) == {"train", "val"}


def test_folder_without_val_is_explained(yolo):
    yolo.write({"a.jpg": GOOD}).yaml.unlink()
    (yolo.root / "images/val").rename(yolo.root / "images/other")

    with pytest.raises(DataError, match=r"there is no images/val .* needs images/train, images/val"):
        open_dataset(yolo.root)


def test_unknown_sources_are_explained(tmp_path):
    with pytest.raises(DataError, match=r"nowhere: no such file or folder; expected a YOLO data.yaml"):
        open_dataset(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"not a dataset; expected a YOLO data.yaml"):
        open_dataset(tmp_path)
    with pytest.raises(DataError, match=r"data.source: no such file"):
        open_dataset("")
