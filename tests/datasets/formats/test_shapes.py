# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Outlines, oriented corners, run-length masks and declarations: hand numbers and slow references."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from boxwright.datasets.formats.collect import EntryError
from boxwright.datasets.formats.declarations import DeclarationError, attribute_specs, columns, mirror_order
from boxwright.datasets.formats.oriented import oriented_corners
from boxwright.datasets.formats.rle import RleError, decode_rle
from boxwright.datasets.formats.shapes import (
    clip_polygon,
    crosses_itself,
    join_parts,
    mask_outlines,
    polygon_area,
    share_inside,
    smallest_rectangle,
)

SQUARE = np.array([[0, 0], [10, 0], [10, 10], [0, 10]], np.float64)


def moved(x, y):
    return SQUARE + np.array((x, y))


def inside(outlines, height, width):
    """Whether the centre of each pixel lies inside any outline, by the even-odd rule: one ray per pixel."""
    mask = np.zeros((height, width), bool)
    for outline in outlines:
        first, second = outline, np.roll(outline, -1, axis=0)
        odd = np.zeros((height, width), bool)
        for (x1, y1), (x2, y2) in zip(first, second, strict=True):
            for row in range(height):
                y = row + 0.5
                if (y1 > y) != (y2 > y):
                    crossing = x1 + (y - y1) / (y2 - y1) * (x2 - x1)
                    odd[row] ^= np.arange(width) + 0.5 < crossing
        mask |= odd
    return mask


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 9), st.floats(0.2, 0.9))
def test_mask_outlines_enclose_exactly_the_pixels_of_the_mask(seed, height, width, share):
    mask = np.random.default_rng(seed).random((height, width)) < share

    outlines = mask_outlines(mask)

    np.testing.assert_array_equal(inside(outlines, height, width), mask)
    assert sum(polygon_area(part) for part in outlines) == mask.sum()  # bridges enclose nothing


def test_outline_of_a_ring_is_one_path_with_its_hole_joined():
    mask = np.ones((5, 5), bool)
    mask[2, 2] = False

    (outline,) = mask_outlines(mask)

    assert polygon_area(outline) == 24
    assert len(outline) == 4 + 4 + 2  # both loops, and the two ends of the bridge twice


def test_joined_parts_keep_their_area():
    path = join_parts([SQUARE, moved(20, 0), moved(0, 30)])

    assert polygon_area(path) == 300
    assert len(path) == 4 + 2 * (4 + 2)


def test_clipping_to_the_image_by_hand():
    clipped = clip_polygon(SQUARE - (4, 0), 20.0, 5.0)  # 6 px of 10 remain, cut at y = 5

    assert polygon_area(clipped) == 30
    assert clip_polygon(moved(50, 0), 20.0, 20.0).shape == (0, 2)
    assert share_inside(SQUARE - (4, 0), (20, 20)) == 0.6


def test_smallest_rectangle_of_a_turned_square():
    diamond = np.array([[5, 0], [10, 5], [5, 10], [0, 5]], np.float64)

    corners = smallest_rectangle(diamond)

    np.testing.assert_allclose(np.sort(corners, axis=0), np.sort(diamond, axis=0), atol=1e-5)


def test_crossing_is_seen_and_touching_is_not():
    assert crosses_itself(SQUARE[[0, 1, 3, 2]])
    assert not crosses_itself(SQUARE)
    assert not crosses_itself(join_parts([SQUARE, moved(20, 0)]))


def test_case35_and_36_corners_are_reordered_or_named():
    corners, remarks = oriented_corners(SQUARE[[0, 1, 3, 2]], (50, 50))
    assert not crosses_itself(corners)
    assert polygon_area(corners) == 100
    assert [(code, severity) for code, _, _, severity in remarks] == [("corners_crossed", "note")]

    kite = np.array([[0, 0], [10, 0], [10, 10], [5, 2]], np.float64)
    corners, remarks = oriented_corners(kite, (50, 50))
    np.testing.assert_array_equal(corners, kite)
    assert [(code, severity) for code, _, _, severity in remarks] == [("corners_not_rectangle", "warning")]


def test_corners_may_leave_the_image_by_less_than_a_third():
    corners, remarks = oriented_corners(SQUARE - (3, 0), (50, 50))
    assert corners.min() == -3
    assert remarks == []
    with pytest.raises(EntryError, match=r"60 % of the oriented box lies inside the image, at least 70 %"):
        oriented_corners(SQUARE - (4, 0), (50, 50))


def test_more_points_become_the_smallest_rectangle():
    circle = 20 + 10 * np.stack([np.cos(np.arange(36) / 36 * 2 * np.pi), np.sin(np.arange(36) / 36 * 2 * np.pi)], 1)

    corners, _ = oriented_corners(circle, (50, 50))

    assert corners.shape == (4, 2)
    # hull of the points touches every side
    assert cv2.pointPolygonTest(corners.astype(np.float32), (20, 20), True) == pytest.approx(10, abs=0.1)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 12))
def test_run_lengths_decode_as_the_reference_does(seed, height, width):
    mask = np.random.default_rng(seed).random((height, width)) < 0.4
    packed = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    flat = mask.T.ravel().tolist()
    counts, value = [], False
    while flat:
        run = next((i for i, pixel in enumerate(flat) if pixel != value), len(flat))
        counts.append(run)
        flat, value = flat[run:], not value

    size = [height, width]
    for text in (packed["counts"].decode(), counts):
        np.testing.assert_array_equal(decode_rle({"size": size, "counts": text}, (height, width)), mask)


@pytest.mark.parametrize(
    ("rle", "words"),
    [
        ({"size": [2, 2], "counts": [5]}, "add up to 5, the image has 4"),
        ({"size": [2, 2], "counts": [-1, 5]}, "add up to 4"),
        ({"size": [3, 2], "counts": [6]}, r"mask size is \[3, 2\], the image has \[2, 2\]"),
        ({"size": [2, 2], "counts": [2**40]}, "whole numbers"),
        ({"size": [2, 2], "counts": "\x01"}, "not part of a compressed text"),
        ({"size": [2, 2], "counts": "o" * 50}, "not part of a compressed text"),
        ({"size": [2, 2], "counts": "P"}, "end in the middle"),
        ({"size": [2, 2]}, "whole numbers"),
        ("text", "mask size is None"),
    ],
)
def test_case66_bad_masks_are_refused(rle, words):
    with pytest.raises(RleError, match=words):
        decode_rle(rle, (2, 2))


def test_attributes_are_declared_in_two_forms():
    specs = attribute_specs(
        {"colour": ["red", "blue"], "marks": {"values": ["dot"], "multi_label": "true"}, "n": [1, 2]}
    )

    assert [(spec.name, spec.values, spec.multi_label) for spec in specs] == [
        ("colour", ("red", "blue"), False),
        ("marks", ("dot",), True),
        ("n", ("1", "2"), False),
    ]
    assert columns(specs) == 3


@pytest.mark.parametrize(
    ("declared", "key"),
    [
        (["red"], "attributes"),
        ({"colour": "red"}, "attributes.colour"),
        ({"colour": ["red"]}, "attributes.colour"),
        ({"colour": {"values": ["a", "b"], "many": True}}, "attributes.colour"),
        ({"colour": {"values": ["a", "b"], "multi_label": "maybe"}}, "attributes.colour"),
    ],
)
def test_wrong_declarations_name_their_key(declared, key):
    with pytest.raises(DeclarationError) as error:
        attribute_specs(declared)
    assert error.value.key == key


def test_mirror_order_follows_left_and_right():
    assert mirror_order(["nose", "left_eye", "right_eye"]) == (0, 2, 1)
    assert mirror_order(["Right Ear", "Left Ear"]) == (1, 0)
    assert mirror_order(["a", "b"]) is None  # unknown, not "no pairs"
    assert mirror_order(["left_eye", "nose"]) is None  # its partner is missing
