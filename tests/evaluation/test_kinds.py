# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Masks, keypoints and oriented boxes against pycocotools, a slow evaluation, and hand numbers."""

import contextlib
import io
import pickle
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from tests.evaluation.scenes import (
    CLASSES,
    KEYPOINTS,
    NAMES,
    SIZE,
    found_turned,
    perfect,
    random_found,
    random_truths,
    turned,
)

from boxwright.datasets.formats.shapes import mask_outlines
from boxwright.errors import ConfigError, ShapeError
from boxwright.evaluation.coco import COCO_NAMES, POSE_NAMES, coco_result
from boxwright.evaluation.config import EvaluationConfig
from boxwright.evaluation.evaluator import Evaluator
from boxwright.evaluation.measure import Measure
from boxwright.evaluation.scene import EvaluatedScene
from boxwright.ops.keypoints import keypoint_sigmas
from boxwright.ops.polygons import pairwise_oriented_iou
from boxwright.results import Detections, GroundTruth, InstanceMask
from boxwright.vocabulary import AttributeSpec, Vocabulary

SIGMAS = keypoint_sigmas(3, 3)
POSE = Measure("pose", SIGMAS)


def scenes_of(found, truths):
    return [EvaluatedScene.of(index, *pair) for index, pair in enumerate(zip(found, truths, strict=True))]


def official(kind, found, truths, pixels=None):
    """pycocotools on the plain annotations: polygons, RLE and keypoints as a COCO file has them."""
    coco_module = pytest.importorskip("pycocotools.coco")
    from pycocotools.cocoeval import COCOeval
    from pycocotools.mask import area as area_of
    from pycocotools.mask import encode, frPyObjects, merge

    labels, results = coco_module.COCO(), []
    annotations = []
    for image, truth in enumerate(truths, 1):
        for n, label in enumerate(truth.labels.tolist()):
            x1, y1, x2, y2 = truth.boxes[n].double().tolist()
            polygons = [part.reshape(-1).tolist() for part in truth.outlines[n]]
            painted = merge(frPyObjects(polygons, *SIZE))
            area = float(area_of(painted)) if truth.areas is None else float(truth.areas[n])
            points = truth.keypoints[n].double()
            annotations.append(
                {
                    "image_id": image,
                    "category_id": label + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "segmentation": polygons,
                    "keypoints": points.reshape(-1).tolist(),
                    "num_keypoints": int((points[:, 2] > 0).sum()),
                    "area": area,
                    "iscrowd": 0,
                }
            )
        if truth.ignore is not None:
            x1, y1, x2, y2 = truth.ignore[0].double().tolist()
            shape = frPyObjects([[x1, y1, x2, y1, x2, y2, x1, y2]], *SIZE)[0] if pixels is None else encode(pixels)
            region = {
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "segmentation": shape,
                "keypoints": [0.0] * 9,
                "num_keypoints": 0,
                "area": (x2 - x1) * (y2 - y1),
                "iscrowd": 1,
            }
            annotations.append({"image_id": image, "category_id": int(truth.ignore_labels[0]) + 1, **region})
    labels.dataset = {
        "info": {},
        "images": [{"id": n, "height": SIZE[0], "width": SIZE[1]} for n in range(1, len(truths) + 1)],
        "categories": [{"id": n + 1} for n in range(len(NAMES))],
        "annotations": [{"id": n, **row} for n, row in enumerate(annotations, 1)],
    }
    for image, one in enumerate(found, 1):
        for n, label in enumerate(one.labels.tolist()):
            row = {"image_id": image, "category_id": label + 1, "score": float(one.scores[n])}
            row |= {"segmentation": one.masks[n].rle(SIZE)} if kind == "segm" else {}
            row |= {"keypoints": one.keypoints[n].double().reshape(-1).tolist()} if kind == "keypoints" else {}
            results.append(row)
    with contextlib.redirect_stdout(io.StringIO()):
        labels.createIndex()
        evaluation = COCOeval(labels, labels.loadRes(results), kind)
        if kind == "keypoints":
            evaluation.params.kpt_oks_sigmas = np.array(SIGMAS)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    precision = evaluation.eval["precision"]
    return evaluation.stats, precision[:, :, :, 0, -1].mean(axis=(0, 1))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # inside pycocotools
def test_mask_ap_with_crowds_of_run_lengths_equals_pycocotools():
    """As datasets are read: run lengths to outlines, whose pixels are those of the run lengths, holes and all."""
    rng = np.random.default_rng(4)
    crowd = cv2.GaussianBlur(rng.random(SIZE), (0, 0), 9) > 0.5
    truths = random_truths(25, 0, ignore=True)
    outline = tuple(part.astype(np.float32) for part in mask_outlines(crowd))
    shaped = [truth if truth.ignore is None else replace(truth, ignore_outlines=(outline,)) for truth in truths]
    found = random_found(truths, 0, wild=12)

    ours = coco_result(scenes_of(found, shaped), len(NAMES), Measure("mask"))

    stats, ap = official("segm", found, truths, np.asfortranarray(crowd.astype(np.uint8)))
    np.testing.assert_allclose(list(ours.summary.values()), stats, rtol=0, atol=1e-12)
    np.testing.assert_allclose(ours.ap50_95, ap, rtol=0, atol=1e-12)
    boxes = coco_result(scenes_of(found, truths), len(NAMES), Measure("mask"))
    assert boxes.summary["ap50_95"] != ours.summary["ap50_95"]  # the shape counts, not the box around it


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # inside pycocotools
@pytest.mark.parametrize("areas", [False, True], ids=["areas of outlines", "areas of the file"])
@pytest.mark.parametrize("ignore", [False, True], ids=["no regions", "regions"])
def test_mask_ap_equals_pycocotools(areas, ignore):
    truths = random_truths(25, 0, areas=areas, ignore=ignore)
    found = random_found(truths, 0)

    ours = coco_result(scenes_of(found, truths), len(NAMES), Measure("mask"))

    stats, ap = official("segm", found, truths)
    assert list(ours.summary) == list(COCO_NAMES)
    np.testing.assert_allclose(list(ours.summary.values()), stats, rtol=0, atol=1e-12)
    np.testing.assert_allclose(ours.ap50_95, ap, rtol=0, atol=1e-12)
    assert 0.05 < ours.summary["ap50_95"] < 0.9
    assert ours.ap50_95[CLASSES] == -1


@pytest.mark.parametrize("areas", [False, True], ids=["areas of outlines", "areas of the file"])
@pytest.mark.parametrize("ignore", [False, True], ids=["no regions", "regions"])
def test_keypoint_ap_equals_pycocotools(areas, ignore):
    truths = random_truths(25, 1, areas=areas, ignore=ignore)
    found = random_found(truths, 1, wild=20)  # more of a class than the protocol's 20

    ours = coco_result(scenes_of(found, truths), len(NAMES), POSE)

    stats, ap = official("keypoints", found, truths)
    names = ("ap50_95", "ap50", "ap75", "ap_medium", "ap_large", "ar20", "ar20_50", "ar20_75", "ar_medium", "ar_large")
    assert list(ours.summary) == list(POSE_NAMES)
    np.testing.assert_allclose([ours.summary[name] for name in names], stats, rtol=0, atol=1e-12)
    np.testing.assert_allclose(ours.ap50_95, ap, rtol=0, atol=1e-12)
    assert 0.05 < ours.summary["ap50_95"] < 0.95
    assert any((truth.keypoints[..., 2].sum(1) == 0).any() for truth in truths)  # labels without a point took part


def slow_oriented_ap(found, truths, label, threshold):
    """AP of one class at one threshold: greedy by score, each label once, 101 recalls; images one by one."""
    rows, count = [], 0
    for one, truth in zip(found, truths, strict=True):
        mine = truth.boxes[truth.labels == label].double().numpy()
        count += len(mine)
        free = np.ones(len(mine), bool)
        order = [n for n in one.scores.argsort(descending=True).tolist() if one.labels[n] == label][:100]
        for n in order:
            overlap = pairwise_oriented_iou(one.boxes[n : n + 1].double().numpy(), mine)[0] * free
            hit = len(overlap) and overlap.max() >= threshold
            rows.append((float(one.scores[n]), bool(hit)))
            if hit:
                free[overlap.argmax()] = False
    rows.sort(key=lambda row: -row[0])
    hits = np.cumsum([row[1] for row in rows])
    recall, precision = hits / count, hits / np.arange(1, len(rows) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(recall, np.linspace(0, 1, 101), side="left")
    return float(np.mean([precision[i] if i < len(precision) else 0.0 for i in at]))


def test_oriented_ap_equals_a_slow_evaluation_by_polygons():
    truths = turned(random_truths(20, 2))
    found = found_turned(truths)

    ours = coco_result(scenes_of(found, truths), len(NAMES), Measure("obb"))

    for label in range(CLASSES):
        expected = [slow_oriented_ap(found, truths, label, t) for t in np.linspace(0.5, 0.95, 10)]
        assert ours.ap50_95[label] == pytest.approx(np.mean(expected), abs=1e-9)
        assert ours.ap50[label] == pytest.approx(expected[0], abs=1e-9)
    assert 0.1 < ours.summary["ap50_95"] < 0.95


def test_the_angle_counts():
    truth = GroundTruth(torch.tensor([[50.0, 50, 60, 10, 0.0]]), torch.tensor([0]), SIZE)

    def ap50(theta):
        guess = Detections(torch.tensor([[50.0, 50, 60, 10, theta]]), torch.tensor([0.9]), truth.labels, NAMES, SIZE)
        return coco_result(scenes_of([guess], [truth]), 1, Measure("obb")).summary["ap50"]

    assert ap50(0.0) == ap50(np.pi) == pytest.approx(1)
    assert ap50(np.pi / 2) == 0  # the same enclosing area, 100 of 1100 px shared


def test_detections_in_an_ignore_region_are_neither_right_nor_wrong():
    label = torch.tensor([[30.0, 30, 40, 10, 0.0]])
    extra = torch.tensor([[120.0, 80, 40, 10, 0.5]])  # within the region, scored higher than the right one
    found = Detections(torch.cat((label, extra)), torch.tensor([0.5, 0.9]), torch.tensor([0, 0]), NAMES, SIZE)
    plain = GroundTruth(label, torch.tensor([0]), SIZE)
    region = GroundTruth(label, torch.tensor([0]), SIZE, ignore=torch.tensor([[90.0, 50, 150, 110]]))

    scores = [coco_result(scenes_of([found], [t]), 1, Measure("obb")).summary["ap50"] for t in (plain, region)]

    assert scores == [pytest.approx(0.5, abs=0.01), pytest.approx(1)]
    assert Measure("obb").covered(EvaluatedScene.of(0, found, region)).tolist() == pytest.approx([1, 0])  # best first


TASKS = {
    "segment": (("box", "mask"), random_truths, perfect),
    "pose": (("box", "pose"), random_truths, perfect),
    "obb": (("obb",), lambda *a: turned(random_truths(*a)), lambda t: found_turned(t, noise=0, wild=0, times=1)),
}


def evaluator_of(task):
    keypoints = KEYPOINTS if task == "pose" else None
    return Evaluator(Vocabulary(task=task, names=NAMES, keypoints=keypoints), EvaluationConfig(), TASKS[task][0])


@pytest.mark.parametrize("task", TASKS)
def test_perfect_detections_get_everything(task):
    kinds, labels, said = TASKS[task]
    truths = labels(12, 3)
    evaluator = evaluator_of(task)
    evaluator.update(said(truths), truths)

    result = evaluator.result()

    assert result.kinds == kinds
    for kind in kinds:
        assert result.metrics[f"{kind}/ap50_95"] == pytest.approx(1)
        assert result.metrics[f"{kind}/curve_ap50"] == pytest.approx(0.995)
        rows = result.tables[kind]
        assert [row.ap50_95 for row in rows[:CLASSES]] == pytest.approx([1] * CLASSES)
        sizes = [(row.ap_small, row.ap_medium, row.ap_large) for row in rows[:CLASSES]]
        assert {round(value, 9) for row in sizes for value in row} <= {1.0, -1.0}
        assert 1.0 in {value for row in sizes for value in np.round(row, 9)}
        assert np.isnan(rows[CLASSES].ap50)
    assert result.fitness == pytest.approx(len(kinds))


@pytest.mark.parametrize("task", TASKS)
def test_ranks_order_and_pickle_change_nothing(task):
    _kinds, labels, _ = TASKS[task]
    truths = labels(9, 4)
    found = found_turned(truths) if task == "obb" else random_found(truths, 4)
    whole, ranks = evaluator_of(task), [evaluator_of(task), evaluator_of(task)]
    whole.update(found, truths)
    for number in reversed(range(9)):
        ranks[number % 2].update([found[number]], [truths[number]], [number])

    state = pickle.dumps(ranks[1].state())
    ranks[0].merge([pickle.loads(state)])

    assert ranks[0].result().metrics == whole.result().metrics
    assert len(state) < 60_000  # four images: masks are sent as run lengths
    assert len(ranks[0]) == 9


@pytest.mark.parametrize("task", TASKS)
def test_nothing_found_and_nothing_labelled(task):
    labels = TASKS[task][1]
    truths = labels(4, 5)
    width = 5 if task == "obb" else 4
    nothing = Detections(
        torch.zeros(0, width),
        torch.zeros(0),
        torch.zeros(0).long(),
        NAMES,
        SIZE,
        masks=(),
        keypoints=torch.zeros(0, 3, 3),
    )
    evaluator = evaluator_of(task)
    assert evaluator.result().fitness == 0

    evaluator.update([nothing] * 4, truths)

    result = evaluator.result()
    kind = TASKS[task][0][-1]
    assert result.metrics[f"{kind}/ap50_95"] == 0
    assert result.instances == sum(len(truth.labels) for truth in truths)


def test_an_image_without_labels_counts_its_detections_as_wrong():
    truths = [*random_truths(3, 6), GroundTruth(torch.zeros(0, 4), torch.zeros(0).long(), SIZE, outlines=())]
    clean = perfect(truths[:3])
    wrong = Detections(
        torch.tensor([[0.0, 0, 9, 9]]), torch.tensor([0.99]), torch.tensor([0]), NAMES, SIZE,
        masks=(InstanceMask(0, 0, np.ones((9, 9), bool)),),
    )  # fmt: skip
    nothing = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0).long(), NAMES, SIZE, masks=())

    def mask_ap(last):
        evaluator = evaluator_of("segment")
        evaluator.update([*clean, last], truths)
        return evaluator.result().metrics["mask/ap50"]

    assert mask_ap(nothing) == pytest.approx(1)
    assert mask_ap(wrong) < 0.99


def test_hand_numbers_of_the_keypoint_similarity():
    # One of three points is 10 px off; area 400, sigma 1/3: exp(-100 / (2 (2/3)^2 400)) = exp(-0.28125)
    points = torch.tensor([[[10.0, 10, 2], [20, 10, 1], [0, 0, 0]]])
    truth = GroundTruth(
        torch.tensor([[0.0, 0, 30, 30]]), torch.tensor([0]), SIZE, keypoints=points, areas=torch.tensor([400.0])
    )
    told = points.clone()
    told[0, 1, 1] += 10
    found = Detections(truth.boxes, torch.tensor([0.9]), truth.labels, NAMES, SIZE, keypoints=told)

    alike = POSE.similarity(EvaluatedScene.of(0, found, truth)).item()

    assert alike == pytest.approx((1 + np.exp(-0.28125)) / 2)
    bare = GroundTruth(truth.boxes, truth.labels, SIZE, keypoints=points)
    assert POSE.true_areas(EvaluatedScene.of(0, found, bare)) == pytest.approx([900 * 0.53])


def test_attributes_are_judged_on_found_objects_only():
    colour = AttributeSpec(name="colour", values=("red", "blue"))
    wears = AttributeSpec(name="wears", values=("hat", "scarf"), multi_label=True)
    boxes = torch.tensor([[0.0, 0, 20, 20], [40, 40, 60, 60], [80, 80, 100, 100]])
    truth = GroundTruth(
        boxes, torch.tensor([0, 0, 0]), SIZE,
        attributes={"colour": torch.tensor([1, 0, -1]), "wears": torch.tensor([[1.0, 0], [0, 0], [-1, 1]])},
    )  # fmt: skip
    found = Detections(
        torch.cat((boxes, torch.tensor([[150.0, 100, 170, 120]]))), torch.tensor([0.9, 0.8, 0.7, 0.6]),
        torch.tensor([0, 0, 0, 0]), NAMES, SIZE,
        attributes={
            "colour": torch.tensor([[0.2, 0.8], [0.3, 0.7], [0.9, 0.1], [0.5, 0.5]]),  # right, wrong, not labelled
            "wears": torch.tensor([[0.9, 0.6], [0.1, 0.2], [0.4, 0.9], [0.9, 0.9]]),  # 1 of 2, 2 of 2, 1 of 1
        },
    )  # fmt: skip
    evaluator = Evaluator(Vocabulary(names=NAMES, attributes=(colour, wears)), EvaluationConfig())
    assert evaluator.result().metrics["attributes/colour"] == -1

    evaluator.update([found], [truth])

    metrics = evaluator.result().metrics
    assert metrics["attributes/colour"] == pytest.approx(1 / 2)
    assert metrics["attributes/wears"] == pytest.approx(4 / 5)


def test_missing_parts_are_named():
    truth, found = random_truths(1, 7), random_found(random_truths(1, 7), 7)
    bare = [Detections(found[0].boxes, found[0].scores, found[0].labels, NAMES, SIZE)]

    with pytest.raises(ShapeError, match=r"image 0: expected detections with \d+ masks, got 0"):
        evaluator_of("segment").update(bare, truth)
    with pytest.raises(ShapeError, match="keypoints, got None"):
        evaluator_of("pose").update(bare, truth)
    with pytest.raises(ShapeError, match="expected boxes of 5 numbers for 'obb', got 4"):
        evaluator_of("obb").update(bare, truth)
    with pytest.raises(ShapeError, match="expected labels with boxes of 4 numbers"):
        evaluator_of("segment").update(found, turned(truth))
    with pytest.raises(ConfigError, match="expected a KeypointSpec"):
        Evaluator(Vocabulary(names=NAMES), EvaluationConfig(), ("box", "pose"))


def test_masks_of_wanted_pairs_are_compared_as_all_are():
    truths = random_truths(3, 8)
    for scene in scenes_of(random_found(truths, 8), truths):
        everything = Measure("mask").similarity(scene)
        wanted = scene.labels[:, None] == scene.true_labels[None]
        assert np.array_equal(Measure("mask").similarity(scene, wanted), np.where(wanted, everything, 0))
