# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import numpy as np
import pytest

from boxwright.datasets.instances import warp_boxes
from boxwright.datasets.sample import Instances
from boxwright.loading.augment.geometry import (
    Picture,
    apply_letterbox,
    draw_warp,
    keep_visible,
    warp_image,
)
from boxwright.ops.letterbox import FILL, centre_crop, letterbox


def picture_of(boxes, areas, side=100, **more):
    objects = Instances(np.array(boxes, np.float32), np.arange(len(boxes)), **more)
    return Picture(np.zeros((side, side, 3), np.uint8), objects, np.array(areas, np.float64))


def test_no_ranges_move_the_canvas_centre_to_the_output_centre():
    warp = draw_warp(np.random.default_rng(0), 1280, 640)

    # numeric.json, mosaic_affine_identity_M
    assert warp.matrix.tolist() == [[1, 0, -320], [0, 1, -320], [0, 0, 1]]
    assert warp.axis_aligned
    assert warp.scale == 1


def test_matrix_is_the_product_of_its_five_steps():
    ranges = {"degrees": 30.0, "translate": 0.2, "scale": 0.5, "shear": 10.0, "perspective": 0.0005}
    warp = draw_warp(np.random.default_rng(3), 200, 100, **ranges)

    u = np.random.default_rng(3).uniform(-1, 1, 8)
    angle = np.deg2rad(u[2] * 30)
    size = 1 + u[7] * 0.5
    c = np.array([[1, 0, -100], [0, 1, -100], [0, 0, 1]])
    p = np.array([[1, 0, 0], [0, 1, 0], [u[0] * 0.0005, u[1] * 0.0005, 1]])
    r = np.array([[np.cos(angle), np.sin(angle), 0], [-np.sin(angle), np.cos(angle), 0], [0, 0, 1 / size]]) * size
    s = np.array([[1, np.tan(np.deg2rad(u[3] * 10)), 0], [np.tan(np.deg2rad(u[4] * 10)), 1, 0], [0, 0, 1]])
    t = np.array([[1, 0, (0.5 + u[5] * 0.2) * 100], [0, 1, (0.5 + u[6] * 0.2) * 100], [0, 0, 1]])
    np.testing.assert_allclose(warp.matrix, t @ s @ r @ p @ c, atol=1e-12)
    assert warp.scale == pytest.approx(size)
    assert not warp.axis_aligned


def test_drawn_ranges_are_the_recipes():
    rng = np.random.default_rng(0)
    warps = [draw_warp(rng, 200, 100, translate=0.1, scale=0.5) for _ in range(4000)]
    scales = np.array([warp.scale for warp in warps])
    centres = np.array([warp.matrix @ (100, 100, 1) for warp in warps])[:, :2]

    # Uniform: mean and standard deviation of U(0.5, 1.5) and U(40, 60), 4 standard errors.
    assert scales.min() > 0.5
    assert scales.max() < 1.5
    assert abs(scales.mean() - 1) < 4 * 0.289 / 63
    assert np.abs(centres.mean(0) - 50).max() < 4 * 5.77 / 63
    assert np.abs(centres.std(0) - 20 / 12**0.5).max() < 0.2
    assert centres.min() > 40
    assert centres.max() < 60


@pytest.mark.parametrize("matrix", [
    [[0.5, 0, 10], [0, 2, -20], [0, 0, 1]],
    [[0.8, 0.6, 5], [-0.6, 0.8, 40], [0, 0, 1]],
    [[1, 0.1, 0], [0.05, 1.2, 0], [0.0004, -0.0003, 1]],
])  # fmt: skip
def test_pixels_and_boxes_move_alike(matrix):
    matrix = np.array(matrix, np.float64)
    box = np.array([[30.0, 24.0, 62.0, 51.0]])
    image = np.zeros((90, 90, 3), np.uint8)
    image[24:51, 30:62] = 255
    corners = np.array([[30, 24, 1], [62, 24, 1], [62, 51, 1], [30, 51, 1]]) @ matrix.T
    points = corners[:, :2] / corners[:, 2:]

    moved = warp_boxes(box, matrix)
    rows, columns = np.nonzero(warp_image(image, matrix, 100)[..., 1] == 255)

    np.testing.assert_allclose(moved, [[*points.min(0), *points.max(0)]], atol=1e-9)
    extent = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    # Fully covered pixels: up to 2 px less than the box at a sharp corner, never more.
    inside = moved[0].clip(0, 100)
    assert np.all(np.array(extent[:2]) >= inside[:2] - 0.51)
    assert np.all(np.array(extent[2:]) <= inside[2:] + 0.51)
    assert np.abs(extent - inside).max() < 2.5


def test_warped_pixels_have_no_half_pixel_shift():
    ramp = np.repeat(np.arange(100, dtype=np.uint8)[None, :, None] * 2, 100, 0).repeat(3, 2)

    halved = warp_image(ramp, np.diag([0.5, 0.5, 1.0]), 50)

    # The centre of output pixel k is at 2 k + 1, between source pixels 2 k and 2 k + 1: 2 (2 k + 0.5) = 4 k + 1.
    assert halved[10, 5:40, 0].tolist() == [4 * k + 1 for k in range(5, 40)]


def test_boxes_behind_the_horizon_become_empty():
    matrix = np.array([[1, 0, 0], [0, 1, 0], [-0.01, 0, 1.0]])

    moved = warp_boxes(np.array([[10.0, 10, 20, 20], [90, 10, 120, 20]]), matrix)

    assert moved[0] == pytest.approx([10 / 0.9, 10 / 0.9, 25, 25])
    assert moved[1].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(("box", "area", "kept"), [
    ([10, 10, 12, 30], 40, False),  # not wider than 2 px
    ([10, 10, 12.1, 30], 40, True),
    ([10, 10, 30, 12], 40, False),
    ([-50, 0, 10, 10], 600 * 10 / 6.1, True),  # 100 of 1000 px^2 left, and a little more than a tenth
    ([-50, 0, 10, 10], 1000.0, False),  # exactly a tenth
    ([0, 0, 100, 2.01], 200, True),
    ([120, 10, 140, 30], 400, False),  # outside
])  # fmt: skip
def test_filter_keeps_visible_boxes(box, area, kept):
    result = keep_visible(picture_of([box], [area]), 1.0)

    assert len(result.objects) == len(result.areas) == int(kept)


def test_filter_limits_the_aspect():
    slivers = picture_of([[0, 0, 250, 2.4], [0, 5, 239, 7.4]], [1.0, 1.0], side=300)

    assert keep_visible(slivers, 1.0).objects.labels.tolist() == [1]


def test_filter_scales_the_area_and_clips():
    grown = picture_of([[-90, 0, 10, 10]], [250.0])  # was 50 x 5

    assert keep_visible(grown, 2.0).objects.boxes.tolist() == []
    assert keep_visible(picture_of([[-89, 0, 11, 10]], [250.0]), 2.0).objects.boxes.tolist() == [[0, 0, 11, 10]]


@pytest.mark.parametrize("part", ["polygons", "corners"])
def test_filter_asks_for_less_where_the_shape_is_known(part):
    points = np.array([[-97, 0], [3, 0], [3, 10], [-97, 10]], np.float32)
    known = {"polygons": ((points,),)} if part == "polygons" else {"corners": points[None]}

    assert len(keep_visible(picture_of([[-97, 0, 3, 10]], [1000.0]), 1.0).objects) == 0  # 3 % is left
    kept = keep_visible(picture_of([[-97, 0, 3, 10]], [1000.0], **known), 1.0).objects
    assert kept.boxes.tolist() == [[0, 0, 3, 10]]
    held = kept.polygons[0][0] if part == "polygons" else kept.corners[0]
    assert held.tolist() == points.tolist()
    assert len(keep_visible(picture_of([[-97, 0, 3, 10]], [3001.0], **known), 1.0).objects) == 0


def test_filter_forgets_keypoints_and_regions_outside():
    keypoints = np.array([[[5, 5, 2], [-1, 5, 2], [100, 5, 1], [0, 99, 1], [0, 0, 0]]], np.float32)
    regions = np.array([[-5, -5, 10, 10], [100, 0, 120, 10]], np.float32)
    picture = picture_of(
        [[0, 0, 50, 50]], [2500.0], keypoints=keypoints, ignore=regions, ignore_labels=np.array([3, 4])
    )

    objects = keep_visible(picture, 1.0).objects

    assert objects.keypoints.tolist() == [[[5, 5, 2], [0, 0, 0], [0, 0, 0], [0, 99, 1], [0, 0, 0]]]
    assert objects.ignore.tolist() == [[0, 0, 10, 10]]
    assert objects.ignore_labels.tolist() == [3]


def test_letterboxed_image_is_centred_on_grey():
    image = np.full((10, 20, 3), 7, np.uint8)

    result = apply_letterbox(image, letterbox((10, 20), (40, 40)))

    assert (result[10:30] == 7).all()
    assert (result[:10] == FILL).all()
    assert (result[30:] == FILL).all()


def test_a_negative_offset_cuts_the_middle_out():
    image = np.arange(100, dtype=np.uint8)[None, :, None].repeat(50, 0).repeat(3, 2)

    result = apply_letterbox(image, centre_crop((50, 100), 50))

    np.testing.assert_array_equal(result, image[:, 25:75])
