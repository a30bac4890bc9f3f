# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import math
import pickle

import numpy as np
import pytest
import torch

from boxwright.errors import ShapeError
from boxwright.evaluation.coco import COCO_NAMES
from boxwright.evaluation.evaluator import EvaluationConfig, Evaluator
from boxwright.results import Detections, GroundTruth
from boxwright.vocabulary import Vocabulary

CLASSES = 5
NAMES = [f"class {label}" for label in range(CLASSES)]


def evaluated(found, truths, indices=None):
    evaluator = Evaluator(Vocabulary(names=tuple(NAMES)), EvaluationConfig())
    evaluator.update(found, truths, indices)
    return evaluator.result()


def assert_equal_results(one, other):
    assert one.metrics == other.metrics
    assert str(one.per_class) == str(other.per_class)  # as text: NaN equals NaN
    assert np.array_equal(one.confusion, other.confusion)
    assert np.array_equal(one.curves.precision, other.curves.precision)


def test_names_of_all_metrics(random_scenes):
    result = evaluated(*random_scenes(images=10, classes=CLASSES, seed=0))

    extra = ["precision", "recall", "f1", "confidence", "curve_ap50_95", "curve_ap50"]
    assert list(result.metrics) == [f"box/{name}" for name in [*COCO_NAMES, *extra]]
    assert result.fitness == pytest.approx(0.1 * result.metrics["box/ap50"] + 0.9 * result.metrics["box/ap50_95"])
    assert result.fitness > 0.1


def test_means_of_the_classes_are_the_totals(random_scenes):
    found, truths = random_scenes(images=20, classes=CLASSES, seed=1)
    result = evaluated(found, truths)

    lines = [line for line in result.per_class if line.instances]
    total = result.total
    for name in ("precision", "recall", "f1", "ap50", "ap50_95", "curve_ap50", "curve_ap50_95"):
        assert getattr(total, name) == pytest.approx(np.mean([getattr(line, name) for line in lines])), name
    assert sum(line.instances for line in lines) == total.instances == sum(len(truth.labels) for truth in truths)
    assert lines[0].images == sum(bool((truth.labels == 0).any()) for truth in truths)
    never = result.per_class[-1]  # never labelled
    assert (never.images, never.instances) == (0, 0)
    assert math.isnan(never.precision)
    assert math.isnan(never.ap50_95)


def test_order_batches_and_ranks_change_nothing(random_scenes):
    found, truths = random_scenes(images=21, classes=CLASSES, seed=2, tied=True)
    expected = evaluated(found, truths)

    ranks = [Evaluator(Vocabulary(names=tuple(NAMES)), EvaluationConfig()) for _ in range(3)]
    for start in (15, 0, 6, 9, 3, 12, 18):
        chosen = range(start, start + 3)
        ranks[start // 3 % 3].update([found[i] for i in chosen], [truths[i] for i in chosen], list(chosen))
    ranks[2].update([found[0]], [truths[0]], [0])  # a padded shard shows an image again
    ranks[0].merge(pickle.loads(pickle.dumps([rank.state() for rank in ranks[1:]])))

    assert len(ranks[0]) == 21
    assert_equal_results(ranks[0].result(), expected)


def test_images_without_indices_are_numbered_on(random_scenes):
    found, truths = random_scenes(images=4, classes=CLASSES, seed=3)
    evaluator = Evaluator(Vocabulary(names=tuple(NAMES)), EvaluationConfig())

    evaluator.update(found[:2], truths[:2])
    evaluator.update(found[2:], truths[2:])

    assert_equal_results(evaluator.result(), evaluated(found, truths))


def test_unsorted_detections_are_sorted(random_scenes):
    found, truths = random_scenes(images=6, classes=CLASSES, seed=4)
    upside_down = [
        Detections(d.boxes.flip(0), d.scores.flip(0), d.labels.flip(0), d.names, d.image_size) for d in found
    ]

    assert_equal_results(evaluated(upside_down, truths), evaluated(found, truths))


def test_perfect_detections():
    boxes = torch.tensor([[0.0, 0, 50, 50], [60, 60, 90, 95]])
    labels = torch.tensor([0, 3])
    result = evaluated(
        [Detections(boxes, torch.tensor([0.9, 0.8]), labels, tuple(NAMES), (100, 100))],
        [GroundTruth(boxes, labels, (100, 100))],
    )

    assert result.metrics["box/ap50_95"] == result.fitness == pytest.approx(1.0)
    assert result.metrics["box/curve_ap50_95"] == pytest.approx(0.995)
    assert result.metrics["box/precision"] == result.metrics["box/recall"] == pytest.approx(1.0)


def test_nothing_at_all():
    result = evaluated([], [])

    assert result.metrics["box/ap50_95"] == -1.0
    assert result.metrics["box/f1"] == 0.0
    assert (result.fitness, result.images, result.instances) == (0.0, 0, 0)


def test_wrong_numbers_and_labels_are_named(random_scenes):
    found, truths = random_scenes(images=2, classes=CLASSES, seed=3)
    evaluator = Evaluator(Vocabulary(names=tuple(NAMES[:2])), EvaluationConfig())

    with pytest.raises(ShapeError, match=r"expected as many truths and indices as detections \(2\), got 1 and 2"):
        evaluator.update(found, truths[:1], [0, 1])
    with pytest.raises(ShapeError, match="image 0: expected labels from 0 to 1"):
        evaluator.update(found, truths)


def test_legacy_curve_form_is_a_choice(random_scenes):
    found, truths = random_scenes(images=10, classes=CLASSES, seed=6)
    legacy = Evaluator(Vocabulary(names=tuple(NAMES)), EvaluationConfig(curve="legacy"))
    legacy.update(found, truths)

    result, expected = legacy.result(), evaluated(found, truths)

    assert result.metrics["box/curve_ap50_95"] > expected.metrics["box/curve_ap50_95"]
    assert result.metrics["box/ap50_95"] == expected.metrics["box/ap50_95"]
