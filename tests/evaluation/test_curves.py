# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import json
import os
from pathlib import Path

import numpy as np
import pytest

from boxwright.evaluation.curves import THRESHOLDS, average_precision, curves_from_matches, curves_of, match
from boxwright.evaluation.scene import EvaluatedScene

FOLDER = Path(os.environ.get("BOXWRIGHT_GOLDEN") or Path(__file__).parents[1] / "golden")
NUMERIC = json.loads((FOLDER / "numeric.json").read_text())
FORMS = [("2026", "2026"), ("legacy", "seed_era")]


def scene(rows, labels, index=0):
    """rows: (box, score, label) of detections, best first; labels: (box, label)."""
    return EvaluatedScene(
        index=index,
        boxes=np.float32([row[0] for row in rows]).reshape(-1, 4),
        scores=np.float32([row[1] for row in rows]),
        labels=np.array([row[2] for row in rows], np.int64),
        true_boxes=np.float32([row[0] for row in labels]).reshape(-1, 4),
        true_labels=np.array([row[1] for row in labels], np.int64),
        image_size=(100, 100),
    )


@pytest.mark.parametrize(("form", "key"), FORMS)
def test_golden_average_precision(form, key):
    case = NUMERIC["compute_ap"]

    value = average_precision(np.array(case["recall"]), np.array(case["precision"]), form)

    assert value == pytest.approx(case[f"ap101_{key}"], abs=1e-12)


@pytest.mark.parametrize(("form", "key"), FORMS)
def test_golden_curves(form, key):
    case = NUMERIC["ap_per_class"]

    curves = curves_from_matches(
        np.array(case["tp"], bool),
        np.array(case["conf"]),
        np.array(case["pred_cls"], np.int64),
        np.array(case["target_cls"], np.int64),
        form,
    )

    np.testing.assert_allclose(curves.ap, case[f"ap_{key}"], rtol=0, atol=1e-12)
    for name, expected in (("precision", "p"), ("recall", "r"), ("f1", "f1")):
        np.testing.assert_allclose(getattr(curves, name)[:, curves.best], case[expected], rtol=0, atol=1e-12)


@pytest.mark.parametrize(("form", "_"), FORMS)
def test_a_perfect_detector_gets_0995(form, _):
    box = [10, 10, 50, 50]

    curves = curves_of([scene([(box, 0.9, 0)], [(box, 0)])], form)

    np.testing.assert_allclose(curves.ap, NUMERIC["compute_ap_perfect_single"], rtol=0, atol=1e-12)


def test_each_threshold_has_its_own_matches():
    # overlap 0.62: right at 0.50, 0.55 and 0.60
    right = match(scene([([0, 0, 100, 62], 0.9, 0)], [([0, 0, 100, 100], 0)]))

    assert right.tolist() == [[True] * 3 + [False] * 7]
    assert THRESHOLDS.tolist() == pytest.approx([0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95])


def test_among_claims_on_one_label_the_highest_score_wins_not_the_best_overlap():
    label = [0, 0, 100, 100]

    right = match(scene([([0, 0, 100, 80], 0.9, 0), (label, 0.8, 0)], [(label, 0)]))

    assert right[:, 0].tolist() == [True, False]  # at 0.50 both claim it
    assert right[:, 9].tolist() == [False, True]  # at 0.95 only the second does


def test_a_detection_claims_the_label_it_overlaps_most_and_loses_with_it():
    # The second detection overlaps both labels; its best is taken, and it does not fall back to the other.
    labels = [([0, 0, 100, 100], 0), ([0, 30, 100, 130], 0)]

    right = match(scene([([0, 0, 100, 100], 0.9, 0), ([0, 10, 100, 110], 0.8, 0)], labels))

    assert right[:, 0].tolist() == [True, False]


def test_another_class_never_matches():
    box = [0, 0, 10, 10]

    assert not match(scene([(box, 0.9, 1)], [(box, 0)])).any()


def test_matches_equal_a_loop_over_sorted_pairs(random_scenes):
    found, truths = random_scenes(images=10, classes=4, seed=5)
    for index, pair in enumerate(zip(found, truths, strict=True)):
        one = EvaluatedScene.of(index, *pair)
        np.testing.assert_array_equal(match(one), loop_match(one))


def loop_match(one):
    right = np.zeros((len(one.scores), len(THRESHOLDS)), bool)
    for t, threshold in enumerate(THRESHOLDS):
        pairs = []
        for d, box in enumerate(one.boxes.astype(float)):
            for g, other in enumerate(one.true_boxes.astype(float)):
                width = max(0.0, min(box[2], other[2]) - max(box[0], other[0]))
                height = max(0.0, min(box[3], other[3]) - max(box[1], other[1]))
                inter = width * height
                union = (box[2] - box[0]) * (box[3] - box[1]) + (other[2] - other[0]) * (other[3] - other[1]) - inter
                if one.labels[d] == one.true_labels[g] and inter / union >= threshold:
                    pairs.append((inter / union, d, g))
        claims = {}
        for _, d, g in sorted(pairs, key=lambda pair: -pair[0]):
            claims.setdefault(d, g)
        taken = set()
        for d in sorted(claims):
            right[d, t] = claims[d] not in taken
            taken.add(claims[d])
    return right


def test_a_class_with_labels_but_no_detection_counts_as_zero():
    box = [0, 0, 10, 10]

    curves = curves_of([scene([(box, 0.9, 0)], [(box, 0), (box, 2)])])

    assert curves.classes.tolist() == [0, 2]
    assert curves.ap[:, 0].tolist() == pytest.approx([0.995, 0.0])
    assert curves.recall[1].tolist() == [0.0] * 1000


def test_without_labels_there_are_no_curves():
    curves = curves_of([scene([([0, 0, 10, 10], 0.9, 0)], [])])

    assert curves.ap.shape == (0, 10)
    assert curves.precision.shape == (0, 1000)
    assert curves_of([]).classes.tolist() == []
