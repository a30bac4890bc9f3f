# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Label errors: each kind by hand, and what is no error."""

import numpy as np
import pytest
from tests.auditor.builders import labels_of

from boxwright.auditor.errors_ranked import FoundBoxes, errors_of_image, ranked

LABELS = labels_of([(0, 0, 0, 0, 100, 100), (0, 1, 200, 0, 300, 100), (1, 0, 5, 5, 50, 50)])


def found(*rows):
    """Detections from rows (class, score, x1, y1, x2, y2)."""
    table = np.array(rows, np.float64).reshape(-1, 6)
    return FoundBoxes(table[:, 2:], table[:, 1], table[:, 0].astype(np.int64))


RIGHT = [(0, 0.9, 0, 0, 100, 100), (1, 0.8, 200, 0, 300, 98)]


def errors(*rows, ignore=None):
    return [
        (error.kind, error.object, error.labelled, error.detected, round(error.suspicion, 3))
        for error in errors_of_image(LABELS, 0, found(*rows), ignore)
    ]


def test_a_model_that_agrees():
    assert errors(*RIGHT) == []
    assert errors() == []


def test_overlooked_is_sure_and_alone():
    assert errors(*RIGHT, (0, 0.7, 400, 300, 450, 350)) == [("overlooked", -1, "", "cat", 0.7)]
    assert errors(*RIGHT, (0, 0.4, 400, 300, 450, 350)) == [], "not sure"
    assert errors(*RIGHT, (1, 0.7, 0, 0, 60, 60)) == [], "overlaps a label by 0.36"
    both = errors(*RIGHT, (0, 0.7, 400, 300, 450, 350), (1, 0.9, 401, 300, 450, 350))
    assert both == [("overlooked", -1, "", "dog", 0.9)], "one object, two classes"
    region = np.array([[390.0, 290.0, 640.0, 480.0]])
    assert errors(*RIGHT, (0, 0.7, 400, 300, 450, 350), ignore=region) == []


def test_swapped_is_surer_of_another_class():
    assert errors(RIGHT[0], (0, 0.9, 200, 0, 300, 100)) == [("swapped", 1, "dog", "cat", 0.9)]
    assert errors(RIGHT[0], (0, 0.9, 200, 0, 300, 100), (1, 0.3, 200, 0, 300, 100)) == [
        ("swapped", 1, "dog", "cat", pytest.approx(0.6))
    ]
    assert errors(RIGHT[0], (0, 0.9, 200, 0, 300, 100), (1, 0.7, 200, 0, 300, 100)) == [], "it sees both"


def test_badly_placed_overlaps_too_little():
    moved = (1, 0.8, 240, 0, 340, 100)  # IoU 60 / 140
    assert errors(RIGHT[0], moved) == [("badly placed", 1, "dog", "dog", round(0.8 * (1 - 60 / 140), 3))]
    assert errors(RIGHT[0], moved, (1, 0.2, 200, 0, 300, 100)) == [], "another detection fits"


def test_an_image_without_labels():
    empty = labels_of([], images=1)
    (error,) = errors_of_image(empty, 0, found((1, 0.6, 0, 0, 10, 10)))
    assert (error.kind, error.overlap, error.box) == ("overlooked", 0.0, (0.0, 0.0, 10.0, 10.0))


def test_ranking_puts_the_most_suspicious_first():
    table = ranked(
        [
            *errors_of_image(LABELS, 0, found(*RIGHT, (0, 0.7, 400, 300, 450, 350))),
            *errors_of_image(LABELS, 1, found((1, 0.95, 5, 5, 50, 50))),
        ]
    )
    assert table["kind"].tolist() == ["swapped", "overlooked"]
    assert table["suspicion"].tolist() == [0.95, 0.7]
    assert table["image"].tolist() == ["/data/train/1.jpg", "/data/train/0.jpg"]
    assert table["box/x2"].tolist() == [50.0, 450.0]
    assert len(ranked([])) == 0
