# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import contextlib
import io

import numpy as np
import pytest
import torch

from boxwright.evaluation.coco import COCO_NAMES, coco_result
from boxwright.evaluation.scene import EvaluatedScene
from boxwright.results import Detections, GroundTruth


def scenes_of(found, truths):
    return [EvaluatedScene.of(index, *pair) for index, pair in enumerate(zip(found, truths, strict=True))]


def official(found, truths, classes):
    """The twelve numbers and the per-class AP of pycocotools, which is written and used independently of our bridge."""
    coco_module = pytest.importorskip("pycocotools.coco")
    from pycocotools.cocoeval import COCOeval

    def rows(items, extra):
        for image, item in enumerate(items, 1):
            for n, (x1, y1, x2, y2) in enumerate(item.boxes.double().tolist()):
                box = [x1, y1, x2 - x1, y2 - y1]
                row = {"image_id": image, "category_id": int(item.labels[n]) + 1, "bbox": box, "area": box[2] * box[3]}
                yield row | extra(item, n)

    labels = coco_module.COCO()
    labels.dataset = {
        "info": {},
        "images": [{"id": n} for n in range(1, len(truths) + 1)],
        "categories": [{"id": label + 1} for label in range(classes)],
        "annotations": [{"id": n, **row} for n, row in enumerate(rows(truths, lambda item, n: {"iscrowd": 0}), 1)],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        labels.createIndex()
        results = labels.loadRes(list(rows(found, lambda item, n: {"score": float(item.scores[n])})))
        evaluation = COCOeval(labels, results, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    return evaluation.stats, precision.mean(axis=(0, 1)), precision[0].mean(axis=0)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(
    ("images", "classes", "crowd"), [(40, 5, 20), (12, 3, 400), (1, 3, 5)], ids=["scenes", "crowds", "one image"]
)
def test_equals_pycocotools(random_scenes, images, classes, crowd, tied):
    found, truths = random_scenes(images=images, classes=classes, seed=images, crowd=crowd, tied=tied)
    if crowd == 400:  # more detections of one class than the protocol's 100, and the limit matters
        assert max(int(item.labels.bincount().max()) for item in found if len(item)) > 100

    result = coco_result(scenes_of(found, truths), classes)

    stats, ap, ap50 = official(found, truths, classes)
    np.testing.assert_allclose([result.summary[name] for name in COCO_NAMES], stats, rtol=0, atol=1e-6)
    np.testing.assert_allclose(result.ap50_95, ap, rtol=0, atol=1e-6)
    np.testing.assert_allclose(result.ap50, ap50, rtol=0, atol=1e-6)
    assert 0.05 < result.summary["ap50_95"] < 0.95


def test_hand_computed():
    box = torch.tensor([[0.0, 0, 100, 100]])
    half = torch.tensor([[0.0, 0, 100, 62]])  # overlap 0.62: right at 0.50, 0.55 and 0.60
    truth = GroundTruth(box, torch.tensor([0]), (200, 200))
    found = Detections(half, torch.tensor([0.9]), torch.tensor([0]), ("a", "b"), (200, 200))

    result = coco_result(scenes_of([found], [truth]), 2)

    assert result.summary["ap50_95"] == pytest.approx(0.3)
    assert result.summary["ap50"] == 1.0
    assert result.summary["ap75"] == 0.0
    assert result.summary["ap_small"] == -1.0
    assert result.summary["ap_large"] == pytest.approx(0.3)
    assert result.ap50_95.tolist() == pytest.approx([0.3, -1.0])


def test_labels_without_any_detection_score_zero():
    nothing = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64), ("a",), (9, 9))
    truth = GroundTruth(torch.tensor([[0.0, 0, 5, 5]]), torch.tensor([0]), (9, 9))

    result = coco_result(scenes_of([nothing], [truth]), 1)

    assert (result.summary["ap50_95"], result.summary["ar100"], result.ap50.tolist()) == (0.0, 0.0, [0.0])


def test_detections_without_any_label_have_no_score():
    found = Detections(torch.tensor([[0.0, 0, 5, 5]]), torch.tensor([0.9]), torch.tensor([0]), ("a",), (9, 9))
    truth = GroundTruth(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), (9, 9))

    for scenes in (scenes_of([found], [truth]), []):
        result = coco_result(scenes, 1)
        assert set(result.summary.values()) == {-1.0}
        assert tuple(result.summary) == COCO_NAMES
        assert result.ap50.tolist() == [-1.0]


def test_prints_nothing(random_scenes, capfd):
    found, truths = random_scenes(images=5, classes=3, seed=0)

    coco_result(scenes_of(found, truths), 3)

    assert capfd.readouterr() == ("", "")
