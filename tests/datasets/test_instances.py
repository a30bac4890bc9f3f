# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import cv2
import numpy as np
import pytest

from boxwright.datasets.instances import cut, mirror, move, scaling
from boxwright.datasets.raster import outline_pixels
from boxwright.datasets.sample import Instances, join_instances
from boxwright.loading.augment.geometry import draw_warp, warp_image
from boxwright.ops.letterbox import FILL

STAR = np.array([(50, 10), (60, 40), (90, 42), (65, 60), (75, 92), (48, 72), (22, 88), (34, 58), (10, 40), (40, 38)])


def everything(**changes):
    """Two objects with all that a dataset can tell."""
    parts = {
        "boxes": np.array([[10, 10, 90, 92], [20, 30, 60, 50]], np.float32),
        "labels": np.array([3, 1]),
        "polygons": ((STAR.astype(np.float32),), ()),
        "corners": np.array(
            [[[10, 10], [90, 10], [90, 92], [10, 92]], [[20, 40], [40, 30], [60, 40], [40, 50]]], np.float32
        ),
        "keypoints": np.array([[[50, 20, 2], [60, 40, 1]], [[0, 0, 0], [30, 40, 2]]], np.float32),
        "attributes": {"colour": np.array([1, -1]), "marks": np.array([[0, 1], [1, 0]], np.float32)},
        "weights": np.array([1, 0.5], np.float32),
        "ignore": np.array([[0, 0, 20, 30]], np.float32),
        "ignore_labels": np.array([7]),
    }  # fmt: skip
    return Instances(**{**parts, **changes})


def random_matrix(seed, perspective=0.0):
    rng = np.random.default_rng(seed)
    warp = draw_warp(rng, 100, 120, degrees=180.0, translate=0.1, scale=0.5, shear=15.0, perspective=perspective)
    return warp.matrix


def test_scaling_moves_every_part_alike():
    moved = move(everything(), scaling((2.0, 0.5), (3.0, -4.0)))

    assert moved.boxes.tolist() == [[23, 1, 183, 42], [43, 11, 123, 21]]
    assert moved.polygons[0][0][1].tolist() == [123, 16]
    assert moved.polygons[1] == ()
    assert moved.corners[1].tolist() == [[43, 16], [83, 11], [123, 16], [83, 21]]
    assert moved.keypoints.tolist() == [[[103, 6, 2], [123, 16, 1]], [[0, 0, 0], [63, 16, 2]]]
    assert moved.ignore.tolist() == [[3, -4, 43, 11]]
    assert moved.labels.tolist() == [3, 1]
    assert moved.weights.tolist() == [1, 0.5]
    assert moved.attributes["colour"].tolist() == [1, -1]


@pytest.mark.parametrize("seed", range(10))
def test_a_moved_outline_covers_the_moved_pixels(seed):
    """The raster of the moved outline is the moved raster, except for a band of a pixel along its edge."""
    matrix = random_matrix(seed, perspective=0.001 * (seed % 2))
    patch = outline_pixels([STAR.astype(np.float64)], (100, 100))
    image = np.zeros((100, 100, 3), np.uint8)
    image[patch.window][patch.pixels] = 255
    objects = Instances(np.array([[10, 10, 90, 92]], np.float32), np.array([0]), ((STAR.astype(np.float32),),))

    moved = move(objects, matrix)
    expected = warp_image(image, matrix, 120)[..., 0]
    expected[(warp_image(np.full_like(image, 9), matrix, 120) == 114).all(2)] = 0
    found = np.zeros((120, 120), np.uint8)
    patch = outline_pixels(moved.polygons[0], (120, 120))
    found[patch.window][patch.pixels] = 255

    kernel = np.ones((3, 3), np.uint8)
    assert not (found[cv2.erode((expected > 200).astype(np.uint8), kernel).astype(bool)] == 0).any()
    assert not found[~cv2.dilate((expected > 50).astype(np.uint8), kernel).astype(bool)].any()
    points = moved.polygons[0][0]
    np.testing.assert_array_equal(moved.boxes[0], [*points.min(0), *points.max(0)])


@pytest.mark.parametrize("seed", range(10))
def test_a_dot_at_a_keypoint_stays_under_it(seed):
    matrix = random_matrix(seed)
    image = np.full((100, 100, 3), FILL, np.uint8)  # as what lies outside
    image[38:43, 58:63] = 255  # 5 x 5 px around the point (60.5, 40.5)
    keypoints = np.array([[[60.5, 40.5, 2], [0, 0, 0]]], np.float32)
    objects = Instances(np.array([[10, 10, 90, 90]], np.float32), np.array([0]), keypoints=keypoints)

    moved = move(objects, matrix)
    warped = warp_image(image, matrix, 160)[..., 1].astype(float) - FILL
    dots, weights = np.argwhere(warped > 0) + 0.5, warped[warped > 0]

    centre = (dots * weights[:, None]).sum(0) / weights.sum()
    assert np.abs(centre[::-1] - moved.keypoints[0, 0, :2]).max() < 0.15  # grey levels of a few edge pixels
    assert moved.keypoints[0, 1].tolist() == [0, 0, 0]


def test_corners_move_as_an_outline_of_four_points():
    objects = everything(polygons=None)
    outlined = everything(corners=None, polygons=tuple((corners,) for corners in objects.corners))
    matrix = random_matrix(4, perspective=0.001)

    by_corners, by_outline = move(objects, matrix), move(outlined, matrix)

    np.testing.assert_array_equal(by_corners.corners, [outline[0] for outline in by_outline.polygons])
    np.testing.assert_array_equal(by_corners.boxes, by_outline.boxes)


def test_a_turned_box_follows_its_outline_and_not_its_own_corners():
    quarter = np.array([[0.0, -1, 100], [1, 0, 0], [0, 0, 1]])
    half = np.array([[0.7071, -0.7071, 50], [0.7071, 0.7071, 0], [0, 0, 1]])
    circle = np.array([(50 + 20 * np.cos(a), 50 + 20 * np.sin(a)) for a in np.linspace(0, 6.2, 100)], np.float32)
    objects = Instances(np.array([[30, 30, 70, 70]] * 2, np.float32), np.array([0, 1]), ((circle,), ()))

    assert move(objects, quarter).boxes[1].tolist() == [30, 30, 70, 70]
    sides = move(objects, half).boxes[:, 2:] - move(objects, half).boxes[:, :2]
    np.testing.assert_allclose(sides, [[40, 40], [56.6, 56.6]], atol=0.1)


def test_objects_behind_the_horizon_become_empty_with_all_their_parts():
    matrix = np.array([[1, 0, 0], [0, 1, 0], [-0.012, 0, 1.0]])

    moved = move(everything(), matrix)

    assert moved.boxes[0].tolist() == [0, 0, 0, 0]
    assert moved.boxes[1].max() > 0


def test_mirroring_swaps_left_and_right_and_undoes_itself():
    objects = everything()

    once = mirror(objects, (100, 100), upside_down=False, mirrored=True, order=(1, 0))
    twice = mirror(once, (100, 100), upside_down=False, mirrored=True, order=(1, 0))

    assert once.boxes[1].tolist() == [40, 30, 80, 50]
    assert once.keypoints.tolist() == [[[40, 40, 1], [50, 20, 2]], [[70, 40, 2], [0, 0, 0]]]
    assert once.corners[1].tolist() == [[80, 40], [60, 30], [40, 40], [60, 50]]
    assert once.ignore.tolist() == [[80, 0, 100, 30]]
    for name in ("boxes", "corners", "keypoints", "ignore"):
        np.testing.assert_array_equal(getattr(twice, name), getattr(objects, name))
    np.testing.assert_array_equal(twice.polygons[0][0], objects.polygons[0][0])


def test_upside_down_keeps_the_names_of_keypoints():
    flipped = mirror(everything(), (100, 100), upside_down=True, mirrored=False, order=(1, 0))

    assert flipped.keypoints[0].tolist() == [[50, 80, 2], [60, 60, 1]]
    assert flipped.boxes[1].tolist() == [20, 50, 60, 70]


def test_cutting_keeps_what_is_left():
    star = STAR + np.array((0.13, 0.29))  # so that no side passes through the centre of a pixel
    left = cut(everything(polygons=((star.astype(np.float32),), ())), (30, 0, 55, 100))

    assert left.boxes.tolist() == [[30, 10, 55, 92], [30, 30, 55, 50]]
    patch = outline_pixels(left.polygons[0], (100, 100))
    whole = outline_pixels([star], (100, 100))
    expected, found = np.zeros((2, 100, 100), bool)
    expected[whole.window] = whole.pixels
    expected[:, :30] = expected[:, 55:] = False
    found[patch.window] = patch.pixels
    np.testing.assert_array_equal(found, expected)
    assert left.keypoints.tolist() == [[[50, 20, 2], [0, 0, 0]], [[0, 0, 0], [30, 40, 2]]]
    assert sorted(map(tuple, left.corners[0].round(3).tolist())) == [(30, 10), (30, 92), (55, 10), (55, 92)]
    assert left.ignore.shape == (0, 4)
    assert left.ignore_labels.shape == (0,)


def test_an_object_whose_box_alone_is_left_is_dropped():
    corner = (np.array([(0, 0), (40, 0), (0, 40)], np.float32),)
    boxes = np.array([[0, 0, 40, 40]] * 2, np.float32)

    left = cut(Instances(boxes, np.array([0, 1]), (corner, ())), (30, 30, 60, 60))

    assert left.labels.tolist() == [1]  # of this one only the box is known


def test_cutting_drops_what_is_outside_with_all_that_belongs_to_it():
    left = cut(everything(), (65, 0, 100, 100))

    assert left.labels.tolist() == [3]
    assert len(left.polygons) == len(left.corners) == len(left.keypoints) == len(left.weights) == 1
    assert left.attributes["marks"].tolist() == [[0, 1]]


def test_joined_instances_keep_their_order():
    joined = join_instances([everything(), Instances.empty(), everything(ignore=None, ignore_labels=None)])

    assert joined.labels.tolist() == [3, 1, 3, 1]
    assert len(joined.polygons) == 4
    assert joined.attributes["colour"].tolist() == [1, -1, 1, -1]
    assert joined.ignore.tolist() == [[0, 0, 20, 30]]
    assert len(join_instances([])) == 0
