# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import math

import numpy as np
import pytest

from boxwright.ops.polygons import (
    box_corners,
    oriented_corners,
    pairwise_intersections,
    pairwise_oriented_iou,
    polygon_areas,
)


def clipped_area(subject, clip):
    """Area of a convex polygon cut by every edge of another, one after the other (Sutherland and Hodgman)."""
    for i in range(len(clip)):
        a, b = clip[i], clip[(i + 1) % len(clip)]

        def side(p, a=a, b=b):
            return (b[0] - a[0]) * (p[1] - a[1]) - (b[1] - a[1]) * (p[0] - a[0])

        cut = []
        for j in range(len(subject)):
            p, q = subject[j], subject[(j + 1) % len(subject)]
            if side(p) >= 0:
                cut.append(p)
            if side(p) * side(q) < 0:
                share = side(p) / (side(p) - side(q))
                cut.append((p[0] + share * (q[0] - p[0]), p[1] + share * (q[1] - p[1])))
        subject = cut
        if not subject:
            return 0.0
    return sum(p[0] * q[1] - q[0] * p[1] for p, q in zip(subject, subject[1:] + subject[:1], strict=True)) / 2


def random_boxes(count, seed):
    rng = np.random.default_rng(seed)
    return np.concatenate(
        (rng.uniform(0, 100, (count, 2)), rng.uniform(1, 60, (count, 2)), rng.uniform(-4, 4, (count, 1))), axis=1
    )


def test_equals_polygon_clipping_one_pair_at_a_time():
    a, b = random_boxes(30, 0), random_boxes(25, 1)
    corners_a, corners_b = oriented_corners(a)[:, ::-1], oriented_corners(b)[:, ::-1]  # counter-clockwise

    expected = [[clipped_area([*map(tuple, p)], [*map(tuple, q)]) for q in corners_b] for p in corners_a]

    np.testing.assert_allclose(pairwise_intersections(corners_a, corners_b), expected, rtol=1e-9, atol=1e-9)


def test_a_box_overlaps_itself_wholly_however_it_is_written():
    boxes = random_boxes(40, 2)
    turned = boxes[:, [0, 1, 3, 2, 4]] + [0, 0, 0, 0, math.pi / 2]  # sides swapped, a quarter turn more

    for same in (boxes, turned, boxes + np.array([0, 0, 0, 0, math.pi])):
        np.testing.assert_allclose(np.diag(pairwise_oriented_iou(boxes, same)), 1, rtol=1e-9)


def test_hand_numbers():
    square = np.array([[0.0, 0, 2, 2, 0]])

    def iou(*box):
        return pairwise_oriented_iou(square, np.array([box], float)).item()

    assert iou(1, 0, 2, 2, 0) == pytest.approx(1 / 3)
    assert iou(2, 0, 2, 2, 0) == 0  # they share an edge only
    assert iou(0, 0, 1, 1, 0.3) == pytest.approx(1 / 4)  # inside
    assert iou(0, 0, 2 * math.sqrt(2), 2 * math.sqrt(2), math.pi / 4) == pytest.approx(1 / 2)  # around
    assert iou(0, 0, 0, 5, 0) == 0  # without area
    assert iou(50, 50, 2, 2, 1) == 0


def test_far_apart_images_of_a_pair_do_not_lose_digits():
    a = np.array([[30_000.0, 20_000, 40, 8, 0.4]])
    assert pairwise_oriented_iou(a, a + np.array([1.0, 0, 0, 0, 0])).item() == pytest.approx(
        pairwise_oriented_iou(a - [30_000, 20_000, 0, 0, 0], a - [29_999, 20_000, 0, 0, 0]).item(), rel=1e-9
    )


def test_many_pairs_are_the_same_as_few(monkeypatch):
    a = random_boxes(20, 3)
    whole = pairwise_oriented_iou(a, a)
    monkeypatch.setattr("boxwright.ops.polygons.CHUNK", 7)
    assert np.array_equal(pairwise_oriented_iou(a, a), whole)


def test_corners_of_both_kinds_of_boxes_agree_and_have_the_area():
    upright = oriented_corners(np.array([[5.0, 5, 4, 2, 0]]))
    assert np.array_equal(upright, box_corners(np.array([[3.0, 4, 7, 6]])))
    assert polygon_areas(oriented_corners(np.array([[1.0, 2, 4, 2, 0.7]]))) == pytest.approx([8])


def test_nothing_at_all():
    assert pairwise_oriented_iou(np.zeros((0, 5)), random_boxes(3, 0)).shape == (0, 3)
