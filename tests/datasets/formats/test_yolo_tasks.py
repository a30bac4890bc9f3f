# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""YOLO rows of every task: outlines, keypoints, oriented corners, attributes. Images are 40 px high, 60 wide."""

import numpy as np
import pytest

from boxwright.datasets.dataset import DataConfig
from boxwright.datasets.formats.yolo_rows import RowRules, read_rows
from boxwright.errors import DataError
from boxwright.vocabulary import AttributeSpec, KeypointSpec

COLOUR = AttributeSpec(name="colour", values=("red", "green", "blue"))
MARKS = AttributeSpec(name="marks", values=("dot", "stripe"), multi_label=True)


def rows(text, task, *, keypoints=None, attributes=(), **choices):
    rules = RowRules({0: 0, 1: 1}, ("cat", "dog"), keypoints, DataConfig(task=task, **choices), attributes)
    return read_rows(text.encode(), "a.txt", (40, 60), rules)


def codes(labels):
    return [problem.code for problem in labels.problems]


def test_outlines_are_kept_for_segment_and_give_the_box():
    labels = rows("1 .1 .1 .5 .1 .5 .75\n0 .5 .5 .2 .2\n", "segment")

    first, second = labels.instances.polygons
    np.testing.assert_allclose(first[0], [[6, 4], [30, 4], [30, 30]], rtol=1e-6)
    assert first[0].dtype == np.float32
    assert second == ()  # spec/datasets case 14: a box in a polygon file
    np.testing.assert_allclose(labels.instances.boxes, [[6, 4, 30, 30], [24, 16, 36, 24]], rtol=1e-6)
    assert [(p.code, p.message) for p in labels.problems] == [
        ("outline_missing", "1 of 2 rows are boxes without an outline")
    ]


def test_other_tasks_do_not_carry_outlines_unless_everything_is_kept():
    text = "1 .1 .1 .5 .1 .5 .75\n"

    assert rows(text, "detect").instances.polygons is None
    assert len(rows(text, "detect", keep="all").instances.polygons[0]) == 1


def test_case13_self_crossing_outline_is_kept_with_a_note():
    labels = rows("0 .1 .1 .5 .5 .5 .1 .1 .5", "segment")

    assert len(labels.instances) == 1
    assert [(p.code, p.severity) for p in labels.problems] == [("polygon_crosses_itself", "note")]


def test_nine_fields_are_corners_for_obb_and_an_outline_for_segment():
    text = "0 .1 .1 .5 .1 .5 .5 .1 .5"
    corners = [[6, 4], [30, 4], [30, 20], [6, 20]]

    obb = rows(text, "obb").instances
    np.testing.assert_allclose(obb.corners[0], corners, rtol=1e-6)
    assert obb.polygons is None
    np.testing.assert_allclose(rows(text, "segment").instances.polygons[0][0], corners, rtol=1e-6)


def test_obb_reads_boxes_and_outlines_too():
    labels = rows("0 .5 .5 .2 .2\n1 .25 .25 .5 .25 .5 .5 .25 .5 .25 .375", "obb")

    np.testing.assert_allclose(labels.instances.corners[0], [[24, 16], [36, 16], [36, 24], [24, 24]], rtol=1e-6)
    np.testing.assert_allclose(
        np.sort(labels.instances.corners[1], axis=0), [[15, 10], [15, 10], [30, 20], [30, 20]], rtol=1e-5
    )
    assert codes(labels) == ["angle_missing"]


def test_obb_corners_may_leave_the_image_a_little_and_are_not_clipped():
    labels = rows("0 -.1 .1 .4 .1 .4 .5 -.1 .5\n0 -.4 .1 .4 .1 .4 .5 -.4 .5\n0 300 200 400 200 400 300 300 300", "obb")

    np.testing.assert_allclose(labels.instances.corners[0, 0], [-6, 4], rtol=1e-6)
    np.testing.assert_allclose(labels.instances.boxes, [[0, 4, 24, 20]], rtol=1e-6)  # the box is
    assert codes(labels) == ["coord_out_of_range"] * 2
    assert "not pixels" in labels.problems[1].message


def test_case35_and_36_in_rows():
    labels = rows("0 .1 .1 .5 .1 .1 .5 .5 .5\n0 .1 .1 .5 .1 .5 .5 .3 .15", "obb")

    assert [(p.code, p.severity, p.line) for p in labels.problems] == [
        ("corners_crossed", "note", 1),
        ("corners_not_rectangle", "warning", 2),
    ]
    assert len(labels.instances) == 2


def test_keypoints_with_visibility():
    labels = rows("0 .5 .5 .4 .4 .5 .25 2 .4 .4 1 .9 .9 0", "pose", keypoints=KeypointSpec(count=3))

    np.testing.assert_allclose(labels.instances.keypoints, [[[30, 10, 2], [24, 16, 1], [0, 0, 0]]], rtol=1e-6)
    assert labels.problems == ()


def test_keypoints_without_visibility_are_unlabelled_where_negative():
    labels = rows("0 .5 .5 .4 .4 .5 .25 -1 -1", "pose", keypoints=KeypointSpec(count=2, dims=2))

    np.testing.assert_allclose(labels.instances.keypoints, [[[30, 10, 2], [0, 0, 0]]], rtol=1e-6)


def test_box_rows_of_a_pose_file_have_no_keypoints():
    labels = rows("0 .5 .5 .4 .4", "pose", keypoints=KeypointSpec(count=2))

    assert not labels.instances.keypoints.any()
    assert labels.instances.keypoints.shape == (1, 2, 3)


def test_case31_32_and_33_of_pose_rows():
    spec = KeypointSpec(count=1)
    outside = rows("0 .5 .5 .4 .4 1.2 .5 2", "pose", keypoints=spec)
    assert outside.instances.keypoints.tolist() == [[[0, 0, 0]]]
    assert [(p.code, p.action) for p in outside.problems] == [("keypoint_out_of_range", "read as not labelled")]
    assert outside.fixed == 1

    assert codes(rows("0 1.5 .5 .4 .4 .5 .5 2", "pose", keypoints=spec)) == ["coord_out_of_range"]

    unusual = rows("0 .5 .5 .4 .4 .5 .5 7", "pose", keypoints=spec)
    assert unusual.instances.keypoints[0, 0, 2] == 2
    assert codes(unusual) == ["bad_visibility"]


def test_a_keypoint_on_the_border_is_kept_in_spite_of_rounding():
    labels = rows("0 .5 .5 .4 .4 1.0000004 0 2", "pose", keypoints=KeypointSpec(count=1))

    assert labels.instances.keypoints.tolist() == [[[60, 0, 2]]]


def test_attributes_stand_behind_the_coordinates():
    text = "0 .5 .5 .2 .2 2 1 0\n0 .5 .5 .3 .3 -1 -1 -1\n0 .5 .5 .4 .4\n"
    for task in ("detect", "segment"):
        found = rows(text, task, attributes=(COLOUR, MARKS)).instances.attributes
        assert found["colour"].tolist() == [2, -1, -1]
        assert found["marks"].tolist() == [[1, 0], [-1, -1], [-1, -1]]
        assert (found["colour"].dtype, found["marks"].dtype) == (np.int64, np.float32)


def test_attributes_of_outlines_corners_and_poses():
    outline = rows("0 .1 .1 .5 .1 .5 .75 1", "segment", attributes=(COLOUR,)).instances
    assert (len(outline.polygons[0][0]), outline.attributes["colour"].tolist()) == (3, [1])

    oriented = rows("0 .1 .1 .5 .1 .5 .5 .1 .5 1 0", "obb", attributes=(MARKS,)).instances
    assert oriented.attributes["marks"].tolist() == [[1, 0]]

    pose = rows("0 .5 .5 .4 .4 .5 .5 2 0", "pose", keypoints=KeypointSpec(count=1), attributes=(COLOUR,)).instances
    assert (pose.keypoints[0, 0, 2], pose.attributes["colour"].tolist()) == (2, [0])


def test_unknown_attribute_values_are_named_and_unlabelled():
    labels = rows("0 .5 .5 .2 .2 3 1 .5", "detect", attributes=(COLOUR, MARKS))

    assert labels.instances.attributes["colour"].tolist() == [-1]
    assert labels.instances.attributes["marks"].tolist() == [[1, -1]]
    assert [p.message for p in labels.problems] == [
        "attribute 'colour': expected -1 to 2, got 3",
        "attribute 'marks': expected -1, 0 or 1, got 0.5",
    ]


def test_wrong_number_of_attribute_columns_drops_the_row():
    labels = rows("0 .5 .5 .2 .2 1 1", "detect", attributes=(COLOUR, MARKS))

    assert codes(labels) == ["bad_column_count"]
    assert "and 3 of attributes" in labels.problems[0].message


def test_files_without_objects_have_empty_fields():
    empty = rows("", "segment", keypoints=KeypointSpec(count=2), attributes=(MARKS,), keep="all").instances

    assert empty.polygons == ()
    assert empty.keypoints.shape == (0, 2, 3)
    assert empty.attributes["marks"].shape == (0, 2)
    assert rows("", "obb").instances.corners.shape == (0, 4, 2)


def test_datasets_of_each_task_are_read_whole(yolo):
    yolo.write(
        {"a.jpg": "0 .5 .5 .4 .4 .5 .25 2\n"}, extra="kpt_shape: [1, 3]\n", val={"v.jpg": "0 .5 .5 .4 .4 .5 .25 2"}
    )

    assert yolo.scan(task="pose").records[0].instances.keypoints.shape == (1, 1, 3)
    assert yolo.scan(task="detect").records[0].instances.keypoints is None


def test_labels_that_cannot_hold_the_task_are_refused(yolo):
    yolo.write({"a.jpg": "0 .5 .5 .4 .4\n"})

    with pytest.raises(DataError, match="its labels have no keypoints to learn poses from; expected kpt_shape"):
        yolo.scan(task="pose")
    with pytest.raises(DataError, match="do not say the class of whole images"):
        yolo.scan(task="classify")


def test_findings_that_repeat_for_every_file_are_one_line(yolo):
    yolo.write({f"{index}.jpg": "0 .5 .5 .4 .4\n" for index in range(3)})

    (problem,) = yolo.scan(task="segment").report.problems

    assert problem.code == "outline_missing"
    assert "so are 2 more: labels/train/1.txt, labels/train/2.txt" in problem.message
