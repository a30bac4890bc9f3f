# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Ignore regions in evaluation: detections inside are neither right nor wrong, in every number we report."""

import contextlib
import dataclasses
import io

import numpy as np
import pytest
import torch

from boxwright.evaluation.coco import coco_result
from boxwright.evaluation.config import EvaluationConfig
from boxwright.evaluation.confusion import confusion_matrix
from boxwright.evaluation.curves import THRESHOLDS, curves_of
from boxwright.evaluation.evaluator import Evaluator
from boxwright.evaluation.measure import Measure
from boxwright.evaluation.scene import EvaluatedScene
from boxwright.results import Detections, GroundTruth
from boxwright.vocabulary import Vocabulary

CLASSES = 5


def with_regions(truths, *, every_class, seed=0):
    """The truths with up to three large regions each, of one class or of all."""
    source, changed = torch.Generator().manual_seed(seed), []
    for image, truth in enumerate(truths):
        low = torch.rand(image % 4, 2, generator=source) * 250
        boxes = torch.cat((low, low + 40 + torch.rand(image % 4, 2, generator=source) * 150), dim=1)
        labels = torch.randint(0, CLASSES, (image % 4,), generator=source)
        changed.append(dataclasses.replace(truth, ignore=boxes, ignore_labels=None if every_class else labels))
    return changed


def scenes_of(found, truths):
    return [EvaluatedScene.of(index, *pair) for index, pair in enumerate(zip(found, truths, strict=True))]


def official(found, truths):
    """pycocotools with the regions as crowd annotations; those of all classes once for each."""
    coco_module = pytest.importorskip("pycocotools.coco")
    from pycocotools.cocoeval import COCOeval

    def row(image, label, box, **extra):
        x1, y1, x2, y2 = box
        bbox = [x1, y1, x2 - x1, y2 - y1]
        return {"image_id": image, "category_id": label + 1, "bbox": bbox, "area": bbox[2] * bbox[3], **extra}

    annotations, results = [], []
    for image, (detections, truth) in enumerate(zip(found, truths, strict=True), 1):
        for box, label in zip(truth.boxes.double().tolist(), truth.labels.tolist(), strict=True):
            annotations.append(row(image, label, box, iscrowd=0))
        classes = [range(CLASSES)] * len(truth.ignore)
        if truth.ignore_labels is not None:
            classes = [[label] for label in truth.ignore_labels.tolist()]
        for box, labels in zip(truth.ignore.double().tolist(), classes, strict=True):
            annotations += [row(image, label, box, iscrowd=1) for label in labels]
        columns = detections.boxes.double().tolist(), detections.labels.tolist(), detections.scores.tolist()
        results += [row(image, label, box, score=score) for box, label, score in zip(*columns, strict=True)]
    labels = coco_module.COCO()
    labels.dataset = {
        "info": {},
        "images": [{"id": n} for n in range(1, len(truths) + 1)],
        "categories": [{"id": label + 1} for label in range(CLASSES)],
        "annotations": [{"id": n, **annotation} for n, annotation in enumerate(annotations, 1)],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        labels.createIndex()
        evaluation = COCOeval(labels, labels.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


@pytest.mark.parametrize("every_class", [False, True])
@pytest.mark.parametrize("tied", [False, True])
def test_the_twelve_numbers_equal_the_official_ones(random_scenes, every_class, tied):
    found, truths = random_scenes(images=24, classes=CLASSES, seed=3, tied=tied)
    truths = with_regions(truths, every_class=every_class)

    ours = coco_result(scenes_of(found, truths), CLASSES)

    assert list(ours.summary.values()) == pytest.approx(official(found, truths).tolist(), abs=1e-9)
    plain = coco_result(scenes_of(found, [dataclasses.replace(t, ignore=None) for t in truths]), CLASSES)
    assert ours.summary["ap50_95"] > plain.summary["ap50_95"] + 1e-4  # the regions matter here


def one_image(ignore=None, ignore_labels=None):
    """A right detection, a wrong one of 10 x 10 px at (100, 100), and a label nobody found."""
    found = Detections(
        torch.tensor([[100.0, 100, 110, 110], [0, 0, 50, 50]]), torch.tensor([0.9, 0.8]), torch.tensor([0, 0]),
        ("a", "b"), (200, 200),
    )  # fmt: skip
    truth = GroundTruth(torch.tensor([[0.0, 0, 50, 50]]), torch.tensor([0]), (200, 200))
    return found, dataclasses.replace(truth, ignore=ignore, ignore_labels=ignore_labels)


REGIONS = {
    "none": (None, None, 0.0),
    "all of it": ([[90.0, 90, 200, 200]], None, 1.0),
    "its class": ([[90.0, 90, 200, 200]], [0], 1.0),
    "another class": ([[90.0, 90, 200, 200]], [1], 0.0),
    "seven tenths of it": ([[103.0, 100, 200, 200]], None, 0.7),
    "two halves, in two regions": ([[100.0, 100, 105, 110], [105.0, 100, 110, 110]], None, 0.5),
}


@pytest.mark.parametrize("name", REGIONS)
def test_share_of_a_detection_in_a_region_by_hand(name):
    boxes, labels, share = REGIONS[name]
    boxes, labels = (None if part is None else torch.tensor(part) for part in (boxes, labels))
    scene = EvaluatedScene.of(0, *one_image(boxes, labels))

    assert Measure().covered(scene).tolist() == pytest.approx([share, 0.0])
    # The wrong detection comes first: it halves the precision wherever it counts.
    curves = curves_of([scene])
    counts = share + 1e-9 < THRESHOLDS
    assert (curves.ap[0] < 0.6).tolist() == counts.tolist()
    matrix = confusion_matrix([scene], 2, iou=0.45)
    assert matrix[0, 2] == (share <= 0.45)
    assert matrix[0, 0] == 1


def test_a_right_detection_inside_a_region_stays_right():
    found, truth = one_image(torch.tensor([[0.0, 0, 200, 200]]))

    scene = EvaluatedScene.of(0, found, truth)

    assert curves_of([scene]).ap[0].min() > 0.99
    assert confusion_matrix([scene], 2).tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 0]]


def test_regions_that_cover_nothing_change_no_number(random_scenes):
    found, truths = random_scenes(images=12, classes=CLASSES, seed=4)
    away = [dataclasses.replace(truth, ignore=torch.tensor([[-90.0, -90, -10, -10]])) for truth in truths]
    names = tuple("abcde")

    def result(of):
        evaluator = Evaluator(Vocabulary(names=tuple(names)), EvaluationConfig())
        evaluator.update(found, of)
        return evaluator.result()

    plain, other = result(truths), result(away)

    assert other.metrics == plain.metrics
    assert repr(other.per_class) == repr(plain.per_class)  # NaN is not equal to itself
    assert np.array_equal(other.confusion, plain.confusion)
