# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import math

import pytest
import torch
from tests.tasks.made import outputs

from boxwright.errors import ShapeError
from boxwright.evaluation.config import EvaluationConfig
from boxwright.ops.letterbox import centre_crop
from boxwright.results import ImageTruth
from boxwright.structures import ImageOutputs
from boxwright.tasks import task_named
from boxwright.tasks.base import SelectOptions
from boxwright.vocabulary import Vocabulary

CLASSIFY = task_named("classify")
DETECT = task_named("detect")
BOX = centre_crop((48, 96), 32)
LOGITS = ImageOutputs(torch.tensor([[math.log(3.0), 0.0]]))


def results(made=LOGITS, boxes=(BOX,), exclusive=True):
    vocabulary = Vocabulary(task="classify", names=("a", "b"), class_ids=(4, 9), exclusive=exclusive)
    return CLASSIFY.results(made, boxes, options=SelectOptions(), vocabulary=vocabulary, paths=["p.jpg"] * len(boxes))


def test_probabilities_of_exclusive_classes_and_of_others():
    (found,) = results()
    assert found.scores.tolist() == pytest.approx([0.75, 0.25])
    assert (found.names, found.class_ids, found.path, found.image_size) == (("a", "b"), (4, 9), "p.jpg", (48, 96))

    assert results(exclusive=False)[0].scores.tolist() == pytest.approx([0.75, 0.5])


def test_half_precision_is_read_in_float32():
    (found,) = results(ImageOutputs(LOGITS.logits.bfloat16()))
    assert found.scores.dtype == torch.float32


def test_its_evaluator_counts_the_best_and_the_best_five():
    evaluator = CLASSIFY.evaluator(Vocabulary(task="classify", names=("a", "b")), EvaluationConfig())
    evaluator.update(results(), [ImageTruth(0)])
    assert evaluator.result().metrics["top1"] == 1


def test_outputs_of_another_kind_are_refused():
    with pytest.raises(ShapeError, match="expected the outputs of a classifier"):
        results(outputs([[0.0, 0, 9, 9]], [[0.9, 0.1]]))
    with pytest.raises(ShapeError, match="detect: expected the outputs of a detector"):
        DETECT.results(LOGITS, [BOX], options=SelectOptions(), vocabulary=Vocabulary(names=("a", "b")))
    with pytest.raises(ShapeError, match="expected 1 letterboxes and paths, got 0"):
        results(boxes=())
