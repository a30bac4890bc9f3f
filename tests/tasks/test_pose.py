# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import torch
from tests.tasks.made import outputs

from boxwright.evaluation.config import EvaluationConfig
from boxwright.ops.letterbox import letterbox
from boxwright.results import GroundTruth
from boxwright.tasks import task_named
from boxwright.tasks.base import SelectOptions
from boxwright.vocabulary import KeypointSpec, Vocabulary

POSE = task_named("pose")
VOCABULARY = Vocabulary(task="pose", names=("a",), keypoints=KeypointSpec(count=2, skeleton=((0, 1),)))
BOX = letterbox((64, 64), (64, 64))


def test_keypoints_follow_their_candidates():
    # The weaker is suppressed; the last cell that counts is the third one, at (20, 4).
    raw = [[[0.5, 0.5, 9.0], [1, 1, -9.0]], [[7, 7, 0], [7, 7, 0]], [[0, 0, 9.0], [2, 1, 9.0]]]
    preds = outputs([[0.0, 0, 30, 30], [1, 0, 31, 30], [32, 32, 60, 60]], [[0.8], [0.7], [0.9]], keypoints_raw=raw)

    (found,) = POSE.results(preds, [BOX], options=SelectOptions(), vocabulary=VOCABULARY)

    assert found.boxes[:, 0].tolist() == [32, 0]
    assert found.keypoints[0, :, :2].tolist() == [[16, 0], [48, 16]]  # from the corner of the third cell
    assert found.keypoints[1, :, :2].tolist() == [[8, 8], [16, 16]]
    assert found.keypoints[1, :, 2].round().tolist() == [1, 0]
    assert found.keypoint_spec is VOCABULARY.keypoints


def test_its_evaluator_scores_boxes_and_keypoints():
    preds = outputs([[0.0, 0, 30, 30]], [[0.8]], keypoints_raw=[[[0.5, 0.5, 9.0], [1, 1, 9.0]]])
    (found,) = POSE.results(preds, [BOX], options=SelectOptions(), vocabulary=VOCABULARY)
    points = torch.tensor([[[8.0, 8, 2], [16, 16, 1]]])
    evaluator = POSE.evaluator(VOCABULARY, EvaluationConfig())

    evaluator.update([found], [GroundTruth(found.boxes, found.labels, (64, 64), keypoints=points)])

    metrics = evaluator.result().metrics
    assert (metrics["box/ap50_95"], metrics["pose/ap50_95"]) == (1, 1)
