# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import json
import os
from pathlib import Path

import pytest
import torch
from tests.tasks import made

from boxwright.config import component
from boxwright.errors import ConfigError, ShapeError
from boxwright.ops.letterbox import letterbox
from boxwright.structures import Grid, Predictions
from boxwright.tasks import postprocess as module
from boxwright.tasks.base import SelectOptions
from boxwright.tasks.postprocess import finish, postprocess
from boxwright.vocabulary import Vocabulary

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

    (kept,) = postprocess(golden_predictions(), SelectOptions(**arguments))

    expected = torch.tensor(case["out"])
    assert torch.equal(kept.boxes, expected[:, :4])
    assert torch.equal(kept.labels, expected[:, 5].long())
    torch.testing.assert_close(kept.scores, expected[:, 4], rtol=0, atol=2e-7)  # one logit and one sigmoid in float32


def test_a_score_equal_to_the_threshold_does_not_count():
    preds = predictions([[0.0, 0, 1, 1], [9, 9, 10, 10]], [[0.5], [0.75]])

    (kept,) = postprocess(preds, SelectOptions(conf=0.5, iou=0.7))

    assert kept.anchors.tolist() == [1]


def test_images_are_kept_apart_and_an_empty_one_stays_empty():
    box = [0.0, 0, 10, 10]
    preds = predictions([[box, box], [box, box], [box, box]], [[[0.9], [0.8]], [[0.1], [0.1]], [[0.1], [0.6]]])

    kept = postprocess(preds, SelectOptions(conf=0.25, iou=0.7))

    assert [rows.anchors.tolist() for rows in kept] == [[0], [], [1]]


def test_multi_label_gives_one_row_per_class_in_order_of_score():
    preds = predictions([[0.0, 0, 10, 10], [1, 0, 11, 10]], [[0.3, 0.6, 0.1], [0.4, 0.5, 0.9]])

    (kept,) = postprocess(preds, SelectOptions(conf=0.25, iou=0.5, multi_label=True))

    # class 0: anchor 1 (0.4) removes anchor 0 (0.3); class 1: anchor 0 (0.6) removes anchor 1 (0.5); class 2: anchor 1
    assert list(zip(kept.labels.tolist(), kept.anchors.tolist(), strict=True)) == [(2, 1), (1, 0), (0, 1)]


def test_class_filter_follows_the_choice_of_the_best_class():
    preds = predictions([[0.0, 0, 10, 10]], [[0.9, 0.8]])

    assert len(postprocess(preds, SelectOptions(conf=0.25, iou=0.5, classes=[1]))[0].scores) == 0
    assert postprocess(preds, SelectOptions(conf=0.25, iou=0.5, classes=[1], multi_label=True))[0].labels.tolist() == [
        1
    ]
    with pytest.raises(ConfigError, match="from 0 to 1, got 2"):
        postprocess(preds, SelectOptions(conf=0.25, iou=0.5, classes=[2]))


def test_only_the_best_candidates_are_looked_at(monkeypatch):
    monkeypatch.setattr(module, "MAX_CANDIDATES", 2)
    preds = predictions([[20.0 * i, 0, 20 * i + 10, 10] for i in range(4)], [[0.3], [0.5], [0.4], [0.6]])

    (kept,) = postprocess(preds, SelectOptions(conf=0.1, iou=0.5))

    assert kept.anchors.tolist() == [3, 1]


def test_half_precision_outputs_are_scored_and_decoded_in_float32():
    preds = predictions([[1000.0, 1000, 1016, 1024]], [[0.9]])
    half = Predictions(preds.logits.bfloat16(), preds.box_raw.bfloat16(), preds.decoder, preds.grid)

    (kept,) = postprocess(half, SelectOptions(conf=0.1, iou=0.5))

    assert kept.boxes.dtype == kept.scores.dtype == torch.float32


def test_not_a_number_is_never_detected():
    preds = predictions([[0.0, 0, 10, 10], [20, 0, 30, 10]], [[0.9], [0.9]])
    logits = preds.logits.clone()
    logits[0, 0] = float("nan")

    (kept,) = postprocess(
        Predictions(logits, preds.box_raw, preds.decoder, preds.grid), SelectOptions(conf=0.1, iou=0.5)
    )

    assert kept.anchors.tolist() == [1]


@pytest.mark.parametrize("case", NUMERIC["scale_boxes"], ids=lambda case: "x".join(map(str, case["img_hw"])))
def test_golden_mapping_back(case):
    height, width = case["net_hw"]
    # far apart in score, in separate classes: nothing is suppressed
    preds = predictions(case["boxes"], torch.eye(len(case["boxes"])) * 0.5 + 0.1)
    box = letterbox(tuple(case["img_hw"]), (height, width))

    (found,) = finish(
        preds,
        postprocess(preds, SelectOptions(conf=0.5, iou=1.0)),
        [box],
        vocabulary=Vocabulary(names=("a", "b", "c"), class_ids=(3, 5, 9)),
        paths=["p.jpg"],
    )

    order = found.labels.argsort()
    torch.testing.assert_close(found.boxes[order], torch.tensor(case["out_2026"]), rtol=1e-6, atol=1e-4)
    assert (found.names, found.class_ids, found.path) == (("a", "b", "c"), (3, 5, 9), "p.jpg")
    assert found.image_size == tuple(case["img_hw"])


def test_a_missing_letterbox_is_named():
    preds = predictions([[0.0, 0, 1, 1]], [[0.9]])
    kept = postprocess(preds, SelectOptions(conf=0.1, iou=0.5))

    with pytest.raises(ShapeError, match="expected 1 letterboxes"):
        finish(preds, kept, [], vocabulary=Vocabulary(names=("a",)))


# --- heads that give each object once


@pytest.mark.parametrize(("role", "queries"), [("one2one", False), ("decoder", True)])
def test_end_to_end_heads_are_not_suppressed_and_a_candidate_may_have_several_classes(role, queries):
    box = [0.0, 0, 10, 10]
    preds = made.predictions([box, box, box], [[0.9, 0.3], [0.8, 0.1], [0.2, 0.6]], role=role, queries=queries)

    (kept,) = postprocess(preds, SelectOptions(conf=0.25, iou=0.1))

    rows = list(zip(kept.anchors.tolist(), kept.labels.tolist(), strict=True))
    assert rows == [(0, 0), (1, 0), (2, 1), (0, 1)]  # by score


def test_the_best_pairs_are_those_of_the_two_published_steps():
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(60, 5, generator=generator)
    preds = made.predictions(torch.zeros(60, 4), scores, role="one2one")

    (kept,) = postprocess(preds, SelectOptions(conf=0.0, max_det=12))

    chosen = scores.amax(1).topk(12).indices
    values, index = scores[chosen].flatten().topk(12)
    assert kept.anchors.tolist() == chosen[index // 5].tolist()
    assert kept.labels.tolist() == (index % 5).tolist()
    torch.testing.assert_close(kept.scores, values)


def test_the_limit_and_the_class_filter_hold_for_end_to_end_heads():
    preds = made.predictions(torch.zeros(3, 4), [[0.9, 0.3], [0.8, 0.1], [0.2, 0.6]], role="one2one")

    (two,) = postprocess(preds, SelectOptions(max_det=2))
    (second,) = postprocess(preds, SelectOptions(classes=[1]))

    assert two.anchors.tolist() == [0, 1]
    assert second.anchors.tolist() == [2, 0]


def test_equal_scores_keep_the_order_of_candidates_and_classes():
    preds = made.predictions(torch.zeros(3, 4), [[0.5, 0.5], [0.7, 0.5], [0.5, 0.1]], role="decoder", queries=True)
    (kept,) = postprocess(preds, SelectOptions())
    rows = list(zip(kept.anchors.tolist(), kept.labels.tolist(), strict=True))
    assert rows == [(1, 0), (0, 0), (0, 1), (1, 1), (2, 0)]


def test_the_levels_of_a_head_that_gives_one_for_each_are_joined():
    from boxwright.ops.grid import grid_for_image
    from boxwright.structures import Outputs
    from boxwright.tasks.postprocess import detections

    whole = grid_for_image((32, 32), (8, 16))
    levels = []
    for level, (first, count) in enumerate([(0, 16), (16, 4)]):
        grid = Grid(
            points=whole.points[first : first + count],
            strides=whole.strides[first : first + count],
            level=torch.zeros(count, dtype=torch.int64),
            shapes=(whole.shapes[level],),
            level_strides=(whole.level_strides[level],),
            first_level=level,
            total_levels=2,
        )
        boxes = torch.tensor([[4.0 + 10 * level, 0, 12 + 10 * level, 8]]).expand(1, count, 4).contiguous()
        logits = torch.full((1, count, 1), -20.0)
        logits[0, count - 1] = 2.0 - level
        levels.append(Predictions(logits, boxes, AsIs(), grid, layer=level))

    (found,) = detections(
        Outputs(final=levels[1], auxiliary=(levels[0],)),
        [letterbox((32, 32), (32, 32))],
        options=SelectOptions(),
        vocabulary=Vocabulary(names=("a",)),
    )

    assert found.boxes[:, 0].tolist() == [4, 14]
