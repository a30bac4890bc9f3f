# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import json
import os
from pathlib import Path

import pytest
import torch

from boxwright.config import component
from boxwright.errors import ConfigError, ShapeError
from boxwright.ops.letterbox import letterbox
from boxwright.structures import Grid, Predictions
from boxwright.tasks import postprocess as module
from boxwright.tasks.postprocess import finish, postprocess

FOLDER = Path(os.environ.get("BOXWRIGHT_GOLDEN") or Path(__file__).parents[1] / "golden")
NUMERIC = json.loads((FOLDER / "numeric.json").read_text())


@component
class AsIs:
    """A decoder for tests: the raw values are the boxes."""

    def __call__(self, raw, points, strides):
        return raw


def predictions(boxes, scores):
    """Predictions (B, A, 4), (B, A, C) whose boxes and scores are exactly these, up to the rounding of the sigmoid."""
    boxes = torch.as_tensor(boxes, dtype=torch.float32)
    scores = torch.as_tensor(scores, dtype=torch.float64)
    boxes, scores = (x[None] if x.ndim == 2 else x for x in (boxes, scores))
    count = boxes.shape[1]
    grid = Grid(
        points=torch.zeros(count, 2),
        strides=torch.full((count,), 8.0),
        level=torch.zeros(count, dtype=torch.int64),
        shapes=((1, count),),
        level_strides=(8,),
    )
    return Predictions(logits=torch.logit(scores).float(), box_raw=boxes, decoder=AsIs(), grid=grid)


def golden_predictions():
    cx, cy, w, h = torch.tensor(NUMERIC["nms"]["xywh"]).unbind(-1)
    boxes = torch.stack((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), dim=-1)
    return predictions(boxes, NUMERIC["nms"]["scores"])


@pytest.mark.parametrize("name", [name for name in NUMERIC["nms"] if name not in ("xywh", "scores")])
def test_golden_nms(name):
    case = NUMERIC["nms"][name]
    renamed = {"conf_thres": "conf", "iou_thres": "iou"}
    arguments = {renamed.get(key, key): value for key, value in case["args"].items()}

    (kept,) = postprocess(golden_predictions(), **arguments)

    expected = torch.tensor(case["out"])
    assert torch.equal(kept.boxes, expected[:, :4])
    assert torch.equal(kept.labels, expected[:, 5].long())
    torch.testing.assert_close(kept.scores, expected[:, 4], rtol=0, atol=2e-7)  # one logit and one sigmoid in float32


def test_a_score_equal_to_the_threshold_does_not_count():
    preds = predictions([[0.0, 0, 1, 1], [9, 9, 10, 10]], [[0.5], [0.75]])

    (kept,) = postprocess(preds, conf=0.5, iou=0.7)

    assert kept.anchors.tolist() == [1]


def test_images_are_kept_apart_and_an_empty_one_stays_empty():
    box = [0.0, 0, 10, 10]
    preds = predictions([[box, box], [box, box], [box, box]], [[[0.9], [0.8]], [[0.1], [0.1]], [[0.1], [0.6]]])

    kept = postprocess(preds, conf=0.25, iou=0.7)

    assert [rows.anchors.tolist() for rows in kept] == [[0], [], [1]]


def test_multi_label_gives_one_row_per_class_in_order_of_score():
    preds = predictions([[0.0, 0, 10, 10], [1, 0, 11, 10]], [[0.3, 0.6, 0.1], [0.4, 0.5, 0.9]])

    (kept,) = postprocess(preds, conf=0.25, iou=0.5, multi_label=True)

    # class 0: anchor 1 (0.4) removes anchor 0 (0.3); class 1: anchor 0 (0.6) removes anchor 1 (0.5); class 2: anchor 1
    assert list(zip(kept.labels.tolist(), kept.anchors.tolist(), strict=True)) == [(2, 1), (1, 0), (0, 1)]


def test_class_filter_follows_the_choice_of_the_best_class():
    preds = predictions([[0.0, 0, 10, 10]], [[0.9, 0.8]])

    assert len(postprocess(preds, conf=0.25, iou=0.5, classes=[1])[0].scores) == 0
    assert postprocess(preds, conf=0.25, iou=0.5, classes=[1], multi_label=True)[0].labels.tolist() == [1]
    with pytest.raises(ConfigError, match="from 0 to 1, got 2"):
        postprocess(preds, conf=0.25, iou=0.5, classes=[2])


def test_only_the_best_candidates_are_looked_at(monkeypatch):
    monkeypatch.setattr(module, "MAX_CANDIDATES", 2)
    preds = predictions([[20.0 * i, 0, 20 * i + 10, 10] for i in range(4)], [[0.3], [0.5], [0.4], [0.6]])

    (kept,) = postprocess(preds, conf=0.1, iou=0.5)

    assert kept.anchors.tolist() == [3, 1]


def test_half_precision_outputs_are_scored_and_decoded_in_float32():
    preds = predictions([[1000.0, 1000, 1016, 1024]], [[0.9]])
    half = Predictions(preds.logits.bfloat16(), preds.box_raw.bfloat16(), preds.decoder, preds.grid)

    (kept,) = postprocess(half, conf=0.1, iou=0.5)

    assert kept.boxes.dtype == kept.scores.dtype == torch.float32


def test_not_a_number_is_never_detected():
    preds = predictions([[0.0, 0, 10, 10], [20, 0, 30, 10]], [[0.9], [0.9]])
    logits = preds.logits.clone()
    logits[0, 0] = float("nan")

    (kept,) = postprocess(Predictions(logits, preds.box_raw, preds.decoder, preds.grid), conf=0.1, iou=0.5)

    assert kept.anchors.tolist() == [1]


@pytest.mark.parametrize("case", NUMERIC["scale_boxes"], ids=lambda case: "x".join(map(str, case["img_hw"])))
def test_golden_mapping_back(case):
    height, width = case["net_hw"]
    # far apart in score, in separate classes: nothing is suppressed
    preds = predictions(case["boxes"], torch.eye(len(case["boxes"])) * 0.5 + 0.1)
    box = letterbox(tuple(case["img_hw"]), (height, width))

    (found,) = finish(
        postprocess(preds, conf=0.5, iou=1.0), [box], names=["a", "b", "c"], class_ids=[3, 5, 9], paths=["p.jpg"]
    )

    order = found.labels.argsort()
    torch.testing.assert_close(found.boxes[order], torch.tensor(case["out_2026"]), rtol=1e-6, atol=1e-4)
    assert (found.names, found.class_ids, found.path) == (("a", "b", "c"), (3, 5, 9), "p.jpg")
    assert found.image_size == tuple(case["img_hw"])


def test_a_missing_letterbox_is_named():
    kept = postprocess(predictions([[0.0, 0, 1, 1]], [[0.9]]), conf=0.1, iou=0.5)

    with pytest.raises(ShapeError, match="expected 1 letterboxes"):
        finish(kept, [], names=["a"])
