# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import numpy as np

from boxwright.datasets.sample import Instances
from boxwright.loading.augment.copy_paste import mirrored_picture, paste_objects
from boxwright.loading.augment.geometry import Picture


def picture(boxes, colour=0, outlined=True, side=100):
    """Squares of value 50, 51, ... on a plain background."""
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    image = np.full((side, side, 3), colour, np.uint8)
    for row, (x1, y1, x2, y2) in enumerate(boxes.astype(int)):
        image[y1:y2, x1:x2] = 50 + row
    outlines = tuple(
        (np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2)], np.float32),) if outlined else ()
        for x1, y1, x2, y2 in boxes
    )
    return Picture(image, Instances(boxes, np.arange(len(boxes)), outlines), np.full(len(boxes), 100.0))


def test_a_mirrored_object_is_painted_with_its_label():
    original = picture([[10, 20, 30, 40]])

    pasted = paste_objects(original, mirrored_picture(original, None), 1.0)

    assert pasted.objects.boxes.tolist() == [[10, 20, 30, 40], [70, 20, 90, 40]]
    assert pasted.objects.labels.tolist() == [0, 0]
    assert (pasted.image[20:40, 70:90] == 50).all()
    assert (pasted.image == 50).sum() == 2 * 20 * 20 * 3
    assert (original.image == 50).sum() == 20 * 20 * 3
    assert pasted.areas.tolist() == [100, 100]


def test_objects_that_would_hide_others_are_not_pasted():
    there = picture([[10, 10, 30, 30]])
    # Covers 7 of 20 columns (35 %), 5 of 20 (25 %), nothing.
    other = picture([[23, 10, 43, 30], [25, 10, 45, 30], [60, 60, 70, 70]], colour=9)

    pasted = paste_objects(there, other, 1.0)

    assert pasted.objects.labels.tolist() == [0, 2, 1]  # by increasing overlap
    assert (pasted.image == 9).sum() == 0


def test_the_share_counts_all_objects_of_the_other_picture():
    other = picture([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [60, 0, 70, 10]])

    assert len(paste_objects(picture([]), other, 0.5).objects) == 2
    assert len(paste_objects(picture([]), other, 0.1).objects) == 0


def test_objects_without_an_outline_stay_where_they_are():
    original = picture([[10, 20, 30, 40]], outlined=False)

    assert paste_objects(original, mirrored_picture(original, None), 1.0) is original
