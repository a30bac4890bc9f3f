# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import pickle

import pytest
import torch

from boxwright.errors import ShapeError
from boxwright.evaluation.config import EvaluationConfig
from boxwright.evaluation.image_labels import ImageEvaluator
from boxwright.results import Classification, ImageTruth
from boxwright.vocabulary import Vocabulary

NAMES = tuple("abcdefg")
CONFIG = EvaluationConfig()


def said(*order):
    """A classification whose classes are best first in this order; the others follow by number."""
    scores = torch.zeros(len(NAMES))
    for place, label in enumerate([*order, *(n for n in range(len(NAMES)) if n not in order)]):
        scores[label] = 0.9 - 0.1 * place
    return Classification(scores, NAMES, (8, 8))


def evaluator():
    return ImageEvaluator(Vocabulary(task="classify", names=NAMES), CONFIG)


def test_hand_numbers():
    one = evaluator()
    # a: right, taken for b but among the five, not among the five; b: right
    one.update([said(0), said(1, 0), said(1, 2, 3, 4, 5), said(1)], [ImageTruth(0)] * 3 + [ImageTruth(1)])

    result = one.result()

    assert (result.metrics["top1"], result.metrics["top5"]) == (2 / 4, 3 / 4)
    assert result.fitness == pytest.approx((2 / 4 + 3 / 4) / 2)
    a, b = result.per_class[:2]
    assert (a.images, a.top1, a.top5, a.precision) == (3, pytest.approx(1 / 3), pytest.approx(2 / 3), 1)
    assert (b.images, b.top1, b.top5, b.precision) == (1, 1, 1, pytest.approx(1 / 3))
    assert a.f1 == pytest.approx(2 * (1 / 3) / (1 + 1 / 3))
    assert result.metrics["recall"] == pytest.approx((1 / 3 + 1) / 2)  # classes without images take no part
    assert result.confusion.shape == (7, 7)
    assert result.confusion[:2, :2].tolist() == [[1, 0], [2, 1]]  # rows predicted
    assert result.total.top1 == 2 / 4
    assert result.per_class[2].images == 0


def test_ranks_change_nothing_and_an_image_counts_once():
    whole, first, second = evaluator(), evaluator(), evaluator()
    found = [said(n % 3) for n in range(6)]
    truths = [ImageTruth(n % 2) for n in range(6)]
    whole.update(found, truths)
    first.update(found[:4], truths[:4], range(4))
    second.update(found[3:], truths[3:], range(3, 6))

    first.merge([pickle.loads(pickle.dumps(second.state()))])

    assert first.result().metrics == whole.result().metrics
    assert len(first) == 6


def test_no_images_score_nothing_and_wrong_labels_are_named():
    assert evaluator().result().fitness == 0
    with pytest.raises(ShapeError, match="image 0: expected a label from 0 to 6, got 7"):
        evaluator().update([said(0)], [ImageTruth(7)])
    with pytest.raises(ShapeError, match="got 2 and 1"):
        evaluator().update([said(0)], [ImageTruth(0)] * 2)


def test_two_classes_have_their_top_five():
    names = ("x", "y")
    one = ImageEvaluator(Vocabulary(task="classify", names=names), CONFIG)
    one.update([Classification(torch.tensor([0.9, 0.1]), names, (8, 8))], [ImageTruth(1)])
    assert (one.result().metrics["top1"], one.result().metrics["top5"]) == (0, 1)
