# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import torch

from boxwright.evaluation.config import EvaluationConfig
from boxwright.models.detector import DetectorConfig
from boxwright.models.heads.anchor_free import AnchorFreeConfig
from boxwright.ops.letterbox import letterbox
from boxwright.structures import Outputs
from boxwright.tasks import task_named
from boxwright.tasks.base import SelectOptions
from boxwright.tasks.postprocess import postprocess
from boxwright.vocabulary import Vocabulary

DETECT = task_named("detect")


def test_a_real_detector_s_rows_are_the_dense_decode_at_the_kept_candidates():
    torch.manual_seed(0)
    model = DetectorConfig(head=AnchorFreeConfig(num_classes=3)).build().eval()
    with torch.no_grad():
        preds = model(torch.rand(2, 3, 64, 96)).final
    best, label = preds.logits.sigmoid().max(dim=2)

    options = SelectOptions(conf=0.0, iou=1.0, max_det=10_000)
    kept = postprocess(preds, options)
    found = DETECT.results(
        Outputs(preds),
        [letterbox((64, 96), (64, 96))] * 2,
        options=options,
        vocabulary=Vocabulary(names=("a", "b", "c")),
    )

    for image, rows in enumerate(kept):
        assert sorted(rows.anchors.tolist()) == list(range(preds.logits.shape[1]))
        torch.testing.assert_close(rows.boxes, preds.boxes[image, rows.anchors], rtol=0, atol=1e-4)  # px
        torch.testing.assert_close(rows.scores, best[image, rows.anchors])
        assert torch.equal(rows.labels, label[image, rows.anchors])
        assert (rows.scores.diff() <= 0).all()
        assert (found[image].boxes >= 0).all()
        assert (found[image].boxes[:, 2] <= 96).all()


def test_its_evaluator_scores_boxes():
    assert DETECT.evaluator(Vocabulary(names=("a",)), EvaluationConfig()).result().metrics["box/ap50_95"] == -1.0
