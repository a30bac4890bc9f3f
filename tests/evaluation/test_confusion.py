# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import json
import os
from pathlib import Path

import numpy as np
import pytest

from boxwright.evaluation.confusion import confusion_matrix
from boxwright.evaluation.scene import EvaluatedScene

FOLDER = Path(os.environ.get("BOXWRIGHT_GOLDEN") or Path(__file__).parents[1] / "golden")
CASE = json.loads((FOLDER / "numeric.json").read_text())["confusion_matrix"]


def scene(detections, labels):
    """detections: rows x1, y1, x2, y2, score, class; labels: rows x1, y1, x2, y2, class."""
    rows, true = np.array(detections, float).reshape(-1, 6), np.array(labels, float).reshape(-1, 5)
    return EvaluatedScene(
        index=0,
        boxes=rows[:, :4].astype(np.float32),
        scores=rows[:, 4].astype(np.float32),
        labels=rows[:, 5].astype(np.int64),
        true_boxes=true[:, :4].astype(np.float32),
        true_labels=true[:, 4].astype(np.int64),
        image_size=(200, 200),
    )


@pytest.mark.parametrize(("key", "expected"), [("label_matching", "matrix"), ("label_not_matching", "matrix_correct")])
def test_golden(key, expected):
    one = scene(CASE["detections_xyxy_conf_cls"], [[*CASE[key]["box"], CASE[key]["cls"]]])

    assert confusion_matrix([one], CASE["nc"]).tolist() == CASE[key][expected]


def test_classes_are_confused_by_place_and_the_best_overlap_goes_first():
    # label of class 0; a detection of class 1 fits it exactly, one of class 0 fits it less
    one = scene([[0, 0, 10, 8, 0.9, 0], [0, 0, 10, 10, 0.5, 1]], [[0, 0, 10, 10, 0]])

    assert confusion_matrix([one], 2).tolist() == [[0, 0, 1], [1, 0, 0], [0, 0, 0]]


def test_a_detection_whose_best_label_is_taken_meets_the_next_one():
    labels = [[0, 0, 100, 100, 0], [0, 30, 100, 130, 1]]
    one = scene([[0, 0, 100, 100, 0.9, 0], [0, 10, 100, 110, 0.8, 1]], labels)  # overlaps 0.82 and 0.67

    assert confusion_matrix([one], 2).tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]


def test_thresholds_are_strict():
    one = scene([[0, 0, 10, 10, 0.25, 0], [0, 0, 10, 5, 0.5, 0]], [[0, 0, 10, 10, 0]])

    assert confusion_matrix([one], 1, conf=0.25, iou=0.5).tolist() == [[0, 1], [1, 0]]
    assert confusion_matrix([one], 1, conf=0.24, iou=0.5).tolist() == [[1, 1], [0, 0]]


def test_every_label_and_every_confident_detection_is_counted_once(random_scenes):
    found, truths = random_scenes(images=30, classes=5, seed=2)
    scenes = [EvaluatedScene.of(index, *pair) for index, pair in enumerate(zip(found, truths, strict=True))]

    matrix = confusion_matrix(scenes, 5)

    labels = np.concatenate([one.true_labels for one in scenes])
    confident = np.concatenate([one.labels[one.scores > 0.25] for one in scenes])
    assert matrix[:, :5].sum(axis=0).tolist() == np.bincount(labels, minlength=5).tolist()
    assert matrix[:5].sum(axis=1).tolist() == np.bincount(confident, minlength=5).tolist()
    assert matrix[5, 5] == 0
    assert matrix.diagonal().sum() > 10


def test_no_images():
    assert confusion_matrix([], 2).tolist() == [[0] * 3] * 3
