# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import torch
from tests.tasks.made import outputs

from boxwright.evaluation.config import EvaluationConfig
from boxwright.ops.letterbox import letterbox
from boxwright.results import GroundTruth
from boxwright.tasks import task_named
from boxwright.tasks.base import SelectOptions
from boxwright.vocabulary import Vocabulary

SEGMENT = task_named("segment")
VOCABULARY = Vocabulary(task="segment", names=("a", "b"))


def scene():
    """Left half positive in the first prototype, right half in the second, on 16 x 16 cells of 4 px."""
    prototypes = torch.full((2, 16, 16), -1.0)
    prototypes[0, :, :8] = 1.0
    prototypes[1, :, 8:] = 1.0
    boxes = [[8.0, 8, 40, 24], [36, 40, 60, 60], [2, 30, 20, 60]]
    return outputs(
        boxes, [[0.9, 0.1], [0.1, 0.8], [0.7, 0.1]], mask_coefs=[[1.0, 0], [0, 1], [-1, 0]], prototypes=prototypes
    )


def test_masks_are_cut_by_box_and_empty_ones_are_dropped():
    (found,) = SEGMENT.results(
        scene(), [letterbox((128, 128), (64, 64))], options=SelectOptions(), vocabulary=VOCABULARY, paths=["p.jpg"]
    )

    # The third would have its mask in the other half: nothing is left of it.
    assert found.labels.tolist() == [0, 1]
    assert found.boxes.tolist() == [[16, 16, 80, 48], [72, 80, 120, 120]]
    first, second = (mask.full((128, 128)) for mask in found.masks)
    assert first[16:48, 16:64].all()  # the left half ends at 32 px there, 64 here
    assert first.sum() == 48 * 32
    assert second[80:120, 72:120].all()
    assert second.sum() == 48 * 40
    assert found.path == "p.jpg"


def test_its_evaluator_scores_boxes_and_masks():
    (found,) = SEGMENT.results(
        scene(), [letterbox((128, 128), (64, 64))], options=SelectOptions(), vocabulary=VOCABULARY
    )
    outlines = [[[16.0, 16], [64, 16], [64, 48], [16, 48]], [[72, 80], [120, 80], [120, 120], [72, 120]]]
    truth = GroundTruth(
        found.boxes, found.labels, (128, 128), outlines=tuple((torch.tensor(of).numpy(),) for of in outlines)
    )
    evaluator = SEGMENT.evaluator(VOCABULARY, EvaluationConfig())

    evaluator.update([found], [truth])

    metrics = evaluator.result().metrics
    assert metrics["box/ap50_95"] > 0.999
    assert metrics["mask/ap50_95"] > 0.999


def test_an_image_without_detections_has_no_masks():
    empty = outputs([[0.0, 0, 9, 9]], [[0.1, 0.1]], mask_coefs=[[1.0]], prototypes=torch.ones(1, 16, 16))
    (found,) = SEGMENT.results(empty, [letterbox((64, 64), (64, 64))], options=SelectOptions(), vocabulary=VOCABULARY)
    assert found.masks == ()
    assert len(found) == 0
