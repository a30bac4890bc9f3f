# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import sys

import cv2
import pytest
import torch
from tests.evaluation.scenes import NAMES, random_found, random_truths

from boxwright.evaluation.evaluator import EvaluationConfig, Evaluator
from boxwright.evaluation.image_labels import ImageEvaluator
from boxwright.evaluation.plots import save_plots
from boxwright.results import Classification, ImageTruth
from boxwright.vocabulary import Vocabulary

PICTURES = {"pr_curve.png", "precision_curve.png", "recall_curve.png", "f1_curve.png", "confusion_matrix.png"}


def result_of(names, found=(), truths=()):
    evaluator = Evaluator(Vocabulary(names=tuple(names)), EvaluationConfig())
    evaluator.update(list(found), list(truths))
    return evaluator.result()


@pytest.mark.parametrize("classes", [3, 40])
def test_pictures_are_written_and_differ(random_scenes, tmp_path, classes):
    names = [rf"$costs_{label} \frac" for label in range(classes)]  # no mathematics, whatever a class is called

    paths = save_plots(result_of(names, *random_scenes(images=20, classes=classes, seed=1)), tmp_path)

    assert {path.name for path in paths} == PICTURES == {path.name for path in tmp_path.iterdir()}
    pictures = [cv2.imread(str(path)) for path in paths]
    assert all(picture.std() > 5 for picture in pictures)
    assert len({picture.tobytes() for picture in pictures}) == len(PICTURES)
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()  # no global figures


def test_pictures_of_nothing(tmp_path):
    assert len(save_plots(result_of(["a"]), tmp_path)) == len(PICTURES)


def test_every_kind_has_its_curves(tmp_path):
    truths = random_truths(8, 0)
    evaluator = Evaluator(Vocabulary(task="segment", names=NAMES), EvaluationConfig(), ("box", "mask"))
    evaluator.update(random_found(truths, 0), truths)

    paths = save_plots(evaluator.result(), tmp_path)

    curves = PICTURES - {"confusion_matrix.png"}
    assert {path.name for path in paths} == PICTURES | {f"mask_{name}" for name in curves}
    assert (tmp_path / "mask_pr_curve.png").read_bytes() != (tmp_path / "pr_curve.png").read_bytes()


def test_whole_images_have_a_confusion_matrix_without_background(tmp_path):
    evaluator = ImageEvaluator(Vocabulary(task="classify", names=NAMES), EvaluationConfig())
    evaluator.update([Classification(torch.rand(4), NAMES, (8, 8))] * 5, [ImageTruth(1)] * 5)

    assert [path.name for path in save_plots(evaluator.result(), tmp_path)] == ["confusion_matrix.png"]
    assert cv2.imread(str(tmp_path / "confusion_matrix.png")).std() > 5
