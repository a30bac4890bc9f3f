# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Boxes that overlap almost wholly, against comparing all with all."""

import numpy as np
from tests.auditor.builders import labels_of

from boxwright.auditor.errors_ranked import pairwise_iou
from boxwright.auditor.pairs import close_pairs


def test_pairs_are_those_of_comparing_all_with_all():
    rng = np.random.default_rng(0)
    base = rng.uniform(0, 300, (40, 2))
    boxes = np.concatenate((base, base + rng.uniform(20, 90, (40, 2))), axis=1)
    boxes = np.concatenate((boxes, boxes + rng.uniform(-3, 3, boxes.shape), boxes[:10]))
    image = rng.integers(0, 2, (len(boxes), 1))
    labels = labels_of(np.concatenate((image, 0 * image, boxes), axis=1))
    overlap = pairwise_iou(labels.boxes, labels.boxes)
    same = (overlap > 0.8) & (labels.image[:, None] == labels.image[None])
    wanted = [(int(a), int(b)) for a, b in np.argwhere(np.triu(same, 1))]

    pairs = close_pairs(labels, 0.8)

    assert len(wanted) > 10
    assert list(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)) == wanted
    assert np.allclose(pairs.overlap, [overlap[a, b] for a, b in wanted])


def test_oriented_objects_that_only_share_their_enclosing_box_are_no_pair():
    falling = np.array([[0.0, 0], [10, 0], [100, 100], [90, 100]])
    rising = np.array([[0.0, 100], [90, 0], [100, 0], [10, 100]])
    again = np.roll(falling, 1, axis=0)[::-1]
    corners = np.stack((falling, rising, again))
    labels = labels_of([(0, 0, 0, 0, 100, 100)] * 3, corners=corners)
    pairs = close_pairs(labels)
    assert list(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)) == [(0, 2)]


def test_no_objects():
    assert len(close_pairs(labels_of([], images=2)).first) == 0
