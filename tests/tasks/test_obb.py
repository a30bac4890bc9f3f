# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import math

import pytest
import torch
from tests.tasks.made import outputs

from boxwright.evaluation.config import EvaluationConfig
from boxwright.ops.letterbox import letterbox
from boxwright.results import GroundTruth
from boxwright.tasks import task_named
from boxwright.tasks.base import SelectOptions
from boxwright.vocabulary import Vocabulary

OBB = task_named("obb")
VOCABULARY = Vocabulary(task="obb", names=("a", "b"))


def test_rotated_suppression_keeps_what_upright_boxes_would_lose():
    # A cross: the enclosing boxes are almost equal, the thin boxes share little.
    cross = [[32.0, 32, 40, 4, math.pi / 4], [32, 32, 40, 4, 3 * math.pi / 4], [33, 33, 40, 4, math.pi / 4]]
    preds = outputs(cross, [[0.9, 0.1], [0.8, 0.1], [0.7, 0.1]])

    (found,) = OBB.results(
        preds, [letterbox((128, 128), (64, 64))], options=SelectOptions(iou=0.5), vocabulary=VOCABULARY
    )

    assert found.boxes.shape == (2, 5)
    assert found.boxes[0].tolist() == pytest.approx([64, 64, 80, 8, math.pi / 4], abs=1e-5)
    assert found.boxes[1, 4].item() == pytest.approx(3 * math.pi / 4, abs=1e-5)
    assert found.masks is None


def test_classes_are_kept_apart_unless_told_otherwise():
    same = [[32.0, 32, 40, 4, 0.3]] * 2
    preds = outputs(same, [[0.9, 0.1], [0.1, 0.8]])
    box = [letterbox((64, 64), (64, 64))]

    counts = [
        len(OBB.results(preds, box, options=SelectOptions(agnostic=agnostic), vocabulary=VOCABULARY)[0])
        for agnostic in (False, True)
    ]

    assert counts == [2, 1]


def test_its_evaluator_compares_oriented_boxes():
    evaluator = OBB.evaluator(VOCABULARY, EvaluationConfig())
    preds = outputs([[32.0, 32, 4, 40, 0.3]], [[0.9, 0.1]])
    (found,) = OBB.results(preds, [letterbox((64, 64), (64, 64))], options=SelectOptions(), vocabulary=VOCABULARY)

    evaluator.update([found], [GroundTruth(torch.tensor([[32.0, 32, 4, 40, 0.3]]), torch.tensor([0]), (64, 64))])

    assert evaluator.result().metrics["obb/ap50_95"] == pytest.approx(1)
