# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import io

import pytest
import torch
from rich.console import Console
from tests.evaluation.scenes import KEYPOINTS, NAMES, perfect, random_truths

from boxwright.cli.tables import class_results
from boxwright.evaluation.config import EvaluationConfig
from boxwright.evaluation.evaluator import Evaluator
from boxwright.evaluation.image_labels import ImageEvaluator
from boxwright.results import Classification, ImageTruth
from boxwright.vocabulary import Vocabulary


def text_of(result):
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(class_results(result, title="val"))
    return console.export_text()


@pytest.mark.parametrize(("task", "kind", "word"), [("segment", "mask", "masks"), ("pose", "pose", "keypoints")])
def test_there_is_a_table_for_each_kind_with_its_sizes(task, kind, word):
    evaluator = Evaluator(Vocabulary(task=task, names=NAMES, keypoints=KEYPOINTS), EvaluationConfig(), ("box", kind))
    truths = random_truths(6, 0)
    evaluator.update(perfect(truths), truths)

    text = text_of(evaluator.result())

    assert "val, boxes" in text
    assert f"val, {word}" in text
    assert text.count("mAP50-95 by size: small") == 2
    assert text.count(" all ") == 2
    assert "1.000" in text


def test_whole_images_have_top_1_and_top_5():
    evaluator = ImageEvaluator(Vocabulary(task="classify", names=NAMES), EvaluationConfig())
    scores = torch.tensor([0.1, 0.6, 0.2, 0.1])
    evaluator.update(
        [Classification(scores, NAMES, (8, 8))] * 4, [ImageTruth(1), ImageTruth(1), ImageTruth(1), ImageTruth(0)]
    )

    text = text_of(evaluator.result())

    assert "top-1" in text
    assert "mAP" not in text
    assert "0.750" in text
    assert "2 of 4 classes have no image in this split" in text
