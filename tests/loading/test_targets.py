# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import math

import numpy as np
import pytest

from boxwright.datasets.sample import Instances
from boxwright.loading.targets import TargetLayout, encode_targets, oriented_boxes, rectangle_of
from boxwright.vocabulary import AttributeSpec

SIZE = (32, 48)


def square(x1, y1, x2, y2):
    return (np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2)], np.float32),)


def instances(boxes, **parts):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    return Instances(boxes, np.arange(len(boxes)), **parts)


def test_the_instance_map_names_slots_and_small_objects_end_on_top():
    small, large = (8, 8, 16, 16), (0, 0, 32, 32)
    objects = instances([small, large], polygons=(square(*small), square(*large)))

    arrays = encode_targets([objects, Instances.empty()], SIZE, TargetLayout(task="segment"))

    assert arrays["instance_map"].shape == (2, 8, 12)
    assert arrays["instance_map"].dtype == np.uint8
    expected = np.zeros((8, 12), int)
    expected[0:8, 0:8] = 2
    expected[2:4, 2:4] = 1
    np.testing.assert_array_equal(arrays["instance_map"], [expected, np.zeros((8, 12))])


def test_masks_keep_hidden_parts():
    small, large = (8, 8, 16, 16), (0, 0, 32, 32)
    objects = instances([small, large], polygons=(square(*small), square(*large)))
    layout = TargetLayout(task="segment", mask_encoding="instances", mask_ratio=8)

    arrays = encode_targets([objects], SIZE, layout)

    assert arrays["masks"].shape == (1, 2, 4, 6)
    assert np.argwhere(arrays["masks"][0, 0]).tolist() == [[1, 1]]
    assert arrays["masks"][0, 1].sum() == 16
    assert "instance_map" not in arrays


def test_an_object_without_an_outline_has_its_box_as_one():
    objects = instances([(0, 0, 16, 8), (20, 8, 28, 24)], polygons=((), square(20, 8, 28, 24)))

    found = encode_targets([objects], SIZE, TargetLayout(task="segment"))["instance_map"][0]

    assert (found[0:2, 0:4] == 1).all()
    assert (found == 1).sum() == 8
    assert (found == 2).sum() == 8


def test_an_object_thinner_than_a_mask_pixel_keeps_one():
    objects = instances([(5, 5, 6, 6)], polygons=(square(5, 5, 6, 6),))

    assert np.argwhere(encode_targets([objects], SIZE, TargetLayout(task="segment"))["instance_map"][0]).tolist() == [
        [1, 1]
    ]


def test_many_objects_need_wider_numbers():
    boxes = [(0, 0, 8, 8)] * 300
    objects = instances(boxes, polygons=(square(0, 0, 8, 8),) * 300)
    arrays = encode_targets([objects], SIZE, TargetLayout(task="segment"))

    assert arrays["instance_map"].dtype == np.int32
    assert arrays["instance_map"].max() == 300


@pytest.mark.parametrize("degrees", [0.0, 10.0, 45.0, 89.9, 90.0, 130.0, 200.0, 359.0])
def test_rectangles_keep_their_shape_at_any_angle(degrees):
    angle = math.radians(degrees)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    corners = np.array([(-10, -3), (10, -3), (10, 3), (-10, 3)]) @ turn.T + (50, 40)

    cx, cy, w, h, theta = rectangle_of(corners)

    assert 0 <= theta < math.pi / 2
    along, across = np.array([math.cos(theta), math.sin(theta)]), np.array([-math.sin(theta), math.cos(theta)])
    again = [np.array([cx, cy]) + i * along * w / 2 + j * across * h / 2 for i in (-1, 1) for j in (-1, 1)]
    # The set of corners is the same, whichever side is called w; OpenCV fits in float32.
    for corner in corners:
        assert min(np.linalg.norm(corner - of) for of in again) < 1e-3


def test_oriented_targets_end_at_the_image():
    corners = np.array([[(-10, 10), (10, 10), (10, 20), (-10, 20)], [(20, 4), (40, 4), (40, 8), (20, 8)]], np.float32)
    objects = instances([(0, 10, 10, 20), (20, 4, 40, 8)], corners=corners)

    boxes = encode_targets([objects, Instances.empty()], SIZE, TargetLayout(task="obb"))["boxes"]

    assert boxes.shape == (2, 2, 5)
    np.testing.assert_allclose(boxes[0], [[5, 15, 10, 10, 0], [30, 6, 20, 4, 0]], atol=1e-4)
    np.testing.assert_allclose(oriented_boxes(objects)[0], [0, 15, 20, 10, 0], atol=1e-4)
    assert not boxes[1].any()


def test_oriented_boxes_fall_back_to_outlines_and_boxes():
    diamond = (np.array([(10, 0), (20, 10), (10, 20), (0, 10)], np.float32),)

    by_outline = oriented_boxes(instances([(0, 0, 20, 20)] * 2, polygons=(diamond, ())))

    np.testing.assert_allclose(by_outline[0], [10, 10, 200**0.5, 200**0.5, math.pi / 4], atol=1e-4)
    np.testing.assert_allclose(by_outline[1], [10, 10, 20, 20, 0], atol=1e-4)


def test_keypoints_attributes_weights_and_regions_are_padded():
    specs = (
        AttributeSpec(name="colour", values=("red", "blue")),
        AttributeSpec(name="marks", values=("dot", "stripe"), multi_label=True),
    )
    told = instances(
        [(0, 0, 9, 9), (1, 1, 5, 5)],
        keypoints=np.arange(12, dtype=np.float32).reshape(2, 2, 3),
        attributes={"colour": np.array([1, -1]), "marks": np.array([[0, 1], [-1, -1]], np.float32)},
        weights=np.array([2, 0.5], np.float32),
        ignore=np.array([[1, 2, 3, 4]], np.float32),
        ignore_labels=np.array([5]),
    )
    silent = instances([(0, 0, 4, 4)])

    arrays = encode_targets([told, silent], SIZE, TargetLayout(task="pose", keypoints=2, attributes=specs))

    assert arrays["keypoints"][0, 1].tolist() == [[6, 7, 8], [9, 10, 11]]
    assert not arrays["keypoints"][1].any()
    assert arrays["attributes"]["colour"].tolist() == [[1, -1], [-1, -1]]
    assert arrays["attributes"]["marks"].tolist() == [[[0, 1], [-1, -1]], [[-1, -1], [-1, -1]]]
    assert arrays["weights"].tolist() == [[2, 0.5], [1, 1]]
    assert arrays["ignore"].tolist() == [[[1, 2, 3, 4]], [[0, 0, 0, 0]]]


def test_detection_has_boxes_only():
    arrays = encode_targets([instances([(0, 0, 9, 9)], polygons=(square(0, 0, 9, 9),))], SIZE, TargetLayout())

    assert set(arrays) == {"labels", "boxes", "valid"}
