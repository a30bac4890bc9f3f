# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Pascal VOC folders: offsets, lists, and spec/datasets case 69."""

import pytest

from boxwright.datasets.dataset import DataConfig, read_split
from boxwright.datasets.formats import open_dataset
from boxwright.errors import DataError


@pytest.mark.parametrize(
    ("offset", "box"), [("exact", [10, 10, 30, 30]), ("legacy", [10, 10, 29, 29]), ("none", [11, 11, 30, 30])]
)
def test_offsets(voc, make_object, offset, box):
    records = voc.write({"a": make_object((11, 11, 30, 30))}).scan(voc_offset=offset)

    assert records.records[0].instances.boxes.tolist() == [box]
    assert records.report.problems == ()


def test_names_are_sorted_over_all_splits_or_given(voc, make_object):
    voc.write({"a": make_object(name="dog") + make_object((1, 1, 9, 9), "cat")}, {"v": make_object(name="ant")})

    assert voc.scan().header.names == ("ant", "cat", "dog")
    given = voc.scan(names=("dog", "cat", "ant"))
    assert given.header.names == ("dog", "cat", "ant")
    assert given.records[0].instances.labels.tolist() == [0, 1]


DROPPED = [
    pytest.param({"box": (20, 20, 20, 30)}, "zero_area", "xmin 20", id="case69-zero-width"),
    pytest.param({"box": (1, 30, 9, 30)}, "zero_area", "ymax 30", id="case69-zero-height"),
    pytest.param({"box": None}, "box_missing", "no bndbox", id="case69-missing-bndbox"),
    pytest.param({"box": (1, 1, None, 9)}, "box_incomplete", "no xmax", id="case69-missing-corner"),
    pytest.param({"box": (1, "x", 9, 9)}, "not_a_number", "ymin: expected a number, got 'x'", id="case69-text"),
    pytest.param({"box": (1, "nan", 9, 9)}, "not_finite", "ymin", id="case69-nan"),
    pytest.param({"box": (100, 100, 120, 120)}, "zero_area", "inside the image", id="case69-outside"),
    pytest.param({"name": None}, "class_missing", "no name", id="case69-no-name"),
]


@pytest.mark.parametrize(("wrong", "code", "words"), DROPPED)
def test_bad_object_is_dropped_alone_and_named(voc, make_object, wrong, code, words):
    records = voc.write({"a": make_object() + make_object(**wrong) + make_object((1, 1, 9, 9))}).scan()

    assert len(records.records[0].instances) == 2
    (problem,) = records.report.problems
    assert (problem.file, problem.line, problem.code) == ("Annotations/a.xml", 4, code)
    assert problem.message.startswith("object 2")
    assert words in problem.message
    assert (records.report.rows, records.report.rows_dropped) == (3, 1)


def test_case69_swapped_corners_are_put_in_order_with_a_warning(voc, make_object):
    records = voc.write({"a": make_object((30, 11, 11, 30))}).scan()

    assert records.records[0].instances.boxes.tolist() == [[10, 10, 30, 30]]
    assert [(p.code, p.action, p.severity) for p in records.report.problems] == [
        ("corners_swapped", "swapped", "warning")
    ]
    assert records.report.rows_fixed == 1


def test_case69_unknown_name_is_an_error_listing_the_names(voc, make_object):
    voc.write({"a": make_object(name="cel") + make_object((1, 1, 9, 9))})

    header = open_dataset(voc.root, ["cell", "rod"])
    with pytest.raises(
        DataError, match=r"Annotations/a.xml, line 3: object 1 \(cel\): class 'cel' is not one of cell, rod"
    ):
        read_split(header, "train", DataConfig())
    skipped = read_split(header, "train", DataConfig(fix="skip"))
    assert len(skipped.records[0].instances) == 1


@pytest.mark.parametrize(
    "head",
    [
        '<!DOCTYPE a [<!ENTITY b "x">]>',
        '<!DOCTYPE a SYSTEM "http://127.0.0.1/a.dtd">',
        '<!DOCTYPE lolz [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]>',
    ],
    ids=["entity", "external", "bomb"],
)
def test_case69_document_types_and_entities_are_refused(voc, make_object, head):
    voc.write({"a": make_object(), "b": make_object()}).annotation("a", make_object(name="&b;"), head)

    header = open_dataset(voc.root)
    with pytest.raises(DataError, match=r"Annotations/a.xml, line 1: document types and entities are refused"):
        read_split(header, "train", DataConfig())


def test_broken_xml_drops_the_image_instead_of_making_it_background(voc, make_object):
    voc.write({"a": make_object(), "b": make_object()})
    (voc.root / "Annotations/a.xml").write_text("<annotation>\n<object>\n")
    records = voc.scan()

    assert [record.image.name for record in records.records] == ["b.jpg"]
    assert [(p.code, p.line, p.action) for p in records.report.problems] == [("bad_xml", 3, "image dropped")]
    assert records.report.corrupt == 1


def test_difficult_objects_are_skipped_but_reported(voc, make_object):
    voc.write({"a": make_object() + make_object((1, 1, 9, 9), extra="<difficult>1</difficult>")})

    records = voc.scan()
    assert len(records.records[0].instances) == 1
    assert [(p.code, p.severity) for p in records.report.problems] == [("difficult", "note")]
    assert len(voc.scan(skip_difficult=False).records[0].instances) == 2


def test_parts_do_not_count_as_objects(voc, make_object):
    part = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax><ymax>5</ymax></bndbox></part>"

    records = voc.write({"a": make_object(extra=part)}).scan()

    assert records.header.names == ("cell",)
    assert records.records[0].instances.boxes.tolist() == [[10, 10, 30, 30]]


def test_boxes_leaving_the_image_are_clipped_with_a_warning(voc, make_object):
    records = voc.write({"a": make_object((41, 1, 80.5, 40)) + make_object((0, 5, 10, 10))}).scan()

    assert records.records[0].instances.boxes.tolist() == [[40, 0, 60, 40], [0, 4, 10, 10]]
    first, second = records.report.problems
    assert (first.code, second.code) == ("box_clipped", "box_clipped")
    assert "voc_offset=none" in second.message


def test_duplicates_and_the_cap(voc, make_object):
    many = "".join(make_object((1, 1, 10 + index, 20)) for index in range(6)) + make_object((1, 1, 10, 20))

    records = voc.write({"a": many}).scan(max_objects=4)

    assert len(records.records[0].instances) == 4
    assert [p.code for p in records.report.problems] == ["duplicate_row", "too_many_objects"]


def test_case47_labels_that_look_unrotated_are_warned_about(voc, make_object, encode, make_picture):
    from PIL import Image

    exif = Image.Exif()
    exif[274] = 6
    voc.write({"a": make_object((1, 1, 58, 30))})
    (voc.root / "JPEGImages/a.jpg").write_bytes(encode(make_picture(40, 60), exif=exif))

    found = {problem.code: problem.message for problem in voc.scan().report.problems}

    assert "1 boxes leave the image as its EXIF orientation turns it" in found["labels_unrotated"]
    assert "size says 60 x 40 px, the upright image has 40 x 60" in found["size_mismatch"]


def test_missing_annotation_is_background_and_orphans_are_named(voc, make_object):
    voc.write({"a": make_object(), "b": "", "c": make_object()})
    (voc.root / "Annotations/c.xml").rename(voc.root / "Annotations/ghost.xml")

    records = voc.scan()

    assert [len(record.instances) for record in records.records] == [1, 0, 0]
    assert (records.report.missing, records.report.empty) == (1, 1)
    found = {problem.code: problem.file for problem in records.report.problems}
    assert found["orphan_label"] == "Annotations/ghost.xml"


def test_listed_ids_are_checked(voc, make_object):
    voc.write({"a": make_object(), "b": make_object()})
    (voc.root / "ImageSets/Main/train.txt").write_text("a\nb  1\nghost\n../a\na\n")

    records = voc.scan()

    assert [record.image.name for record in records.records] == ["a.jpg", "b.jpg"]
    found = [(problem.code, problem.file, problem.line) for problem in records.report.problems]
    assert found == [
        ("bad_path", "ImageSets/Main/train.txt", 4),
        ("duplicate_image", "ImageSets/Main/train.txt", 5),
        ("image_missing", "JPEGImages/ghost.jpg", None),
    ]


def test_missing_list_is_explained(voc, make_object):
    voc.write({"a": make_object()})
    (voc.root / "ImageSets/Main/val.txt").unlink()

    with pytest.raises(DataError, match=r"val.txt: missing; it lists the images of the val split"):
        open_dataset(voc.root)


def test_trainval_is_used_to_train_when_there_is_no_train_list(voc, make_object):
    voc.write({"a": make_object()})
    (voc.root / "ImageSets/Main/train.txt").rename(voc.root / "ImageSets/Main/trainval.txt")

    records = voc.scan()

    assert len(records.records) == 1
    assert [problem.code for problem in records.header.problems] == ["trainval_used"]


def test_case52_image_links_out_of_the_dataset_are_refused(voc, make_object, tmp_path):
    voc.write({"a": make_object(), "b": make_object()})
    outside = tmp_path / "outside.jpg"
    (voc.root / "JPEGImages/b.jpg").rename(outside)
    (voc.root / "JPEGImages/b.jpg").symlink_to(outside)

    records = voc.scan()

    assert [record.image.name for record in records.records] == ["a.jpg"]
    assert [(p.code, p.file) for p in records.report.problems] == [("link_outside", "JPEGImages/b.jpg")]
    assert records.report.corrupt == 1
    assert len(voc.scan(follow_links=True).records) == 2


def test_real_bccd(shared_data):
    header = open_dataset(shared_data("bccd"))

    assert header.names == ("Platelets", "RBC", "WBC")
    totals = dict.fromkeys(header.names, 0)
    dropped = []
    for split, count in (("train", 205), ("val", 87), ("test", 72)):
        records = read_split(header, split, DataConfig())
        assert len(records.records) == count
        dropped += [str(problem) for problem in records.report.problems]
        for name, number in records.report.per_class_counts.items():
            totals[name] += number
    assert totals == {"RBC": 4155 - 2, "WBC": 372, "Platelets": 361}
    assert [text.split(" (RBC)")[0] for text in dropped] == [
        "Annotations/BloodImage_00343.xml, line 50: object 4",
        "Annotations/BloodImage_00338.xml, line 158: object 13",
    ]
    named = open_dataset(shared_data("bccd"), ["RBC", "WBC", "Platelets"])
    assert named.names == ("RBC", "WBC", "Platelets")


def test_what_an_object_tells_beside_class_and_box_is_counted_as_left_out(voc, make_object):
    part = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax><ymax>5</ymax></bndbox></part>"
    told = make_object(extra=f"<pose>Left</pose><truncated>1</truncated><occluded>1</occluded>{part}{part}")
    silent = make_object((1, 1, 9, 9), extra="<pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult>")
    hard = make_object((2, 1, 9, 9), extra="<difficult>1</difficult>")
    voc.write({"a": told + silent + hard})
    expected = {"values of pose": 1, "values of truncated": 1, "values of occluded": 1, "boxes of parts": 2}

    assert dict(voc.scan().report.left_out) == expected  # the difficult one was not used at all
    flag = {"difficult flags (their objects became ordinary ones)": 1}
    assert dict(voc.scan(skip_difficult=False).report.left_out) == {**expected, **flag}
