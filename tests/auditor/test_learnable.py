# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Candidates in closed form are those that training lays out, and remedies do what they promise."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.auditor.builders import labels_of

from boxwright.api.audit import setting_of
from boxwright.auditor.learnable import (
    CellRule,
    PriorRule,
    QueryRule,
    Setting,
    by_class_and_size,
    count_candidates,
    learnable,
    placed,
)
from boxwright.kernels import fast
from boxwright.losses.assign.anchor_ratio import AnchorRatio
from boxwright.losses.assign.task_aligned import TaskAligned
from boxwright.ops.grid import grid_for_image, make_grid
from boxwright.ops.letterbox import letterbox
from boxwright.presets import preset
from boxwright.structures import Targets

STRIDES = (8, 16, 32)
ANCHORS = (((10.0, 13.0), (16.0, 30.0)), ((30.0, 61.0), (62.0, 45.0)), ((116.0, 90.0), (156.0, 198.0)))


def scattered(count=300, size=(320, 320), seed=0):
    """Objects of 1 to 200 px, some on the lines of the grid, in one image of the network's size."""
    rng = np.random.default_rng(seed)
    wh = np.exp(rng.uniform(0, np.log(200), (count, 2)))
    corner = rng.uniform(-20, 300, (count, 2))
    boxes = np.concatenate((corner, corner + wh), axis=1)
    boxes[::7] = np.round(boxes[::7] / 4) * 4  # centres of cells, and lines between them
    boxes = np.clip(boxes, 0, 320)
    return labels_of(np.concatenate((np.zeros((count, 1)), rng.integers(0, 2, (count, 1)), boxes), axis=1), size=size)


def targets_of(labels, boxes):
    count = len(labels)
    box = torch.from_numpy(boxes)[None]
    return Targets(torch.from_numpy(labels.labels)[None], box, torch.ones(1, count) > 0)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"min_side": "second_stride"},
        {"min_side": 12.0},
        {"smallest_side": 5.0},
        {"level_range": (1.0, 6.0)},
        {"level_range": (1.0, 6.0), "min_side": 16.0},
    ],
)
def test_cells_are_those_that_training_lays_out(options):
    labels = scattered()
    grid = grid_for_image((320, 320), STRIDES)
    prepared = fast(TaskAligned(**options), "prepare")(targets_of(labels, placed(labels, 320, "letterbox")), grid)
    wanted = np.zeros(len(labels), np.int64)
    wanted[prepared.candidates.objects.numpy()] = prepared.candidates.object_cells.numpy()

    counts = count_candidates(labels, Setting(CellRule(strides=STRIDES, **options), 320))

    flat = (labels.wh <= 0).any(axis=1)
    assert counts.sum(axis=1)[~flat].tolist() == wanted[~flat].tolist()
    assert not counts[flat].any()


def test_oriented_cells_are_those_that_training_lays_out():
    rng = np.random.default_rng(1)
    count = 60
    centre, sides, turn = (
        rng.uniform(20, 300, (count, 2)),
        rng.uniform(3, 90, (count, 2)),
        rng.uniform(-1.5, 1.5, count),
    )
    along = np.stack((np.cos(turn), np.sin(turn)), axis=1) * sides[:, :1] / 2
    across = np.stack((-np.sin(turn), np.cos(turn)), axis=1) * sides[:, 1:] / 2
    corners = np.stack(
        (centre - along - across, centre + along - across, centre + along + across, centre - along + across), 1
    )
    rows = np.concatenate((np.zeros((count, 2)), corners.min(axis=1), corners.max(axis=1)), axis=1)
    labels = labels_of(rows, size=(320, 320), corners=corners)
    boxes = np.concatenate((centre, sides, turn[:, None]), axis=1)
    grid = grid_for_image((320, 320), STRIDES)
    prepared = fast(TaskAligned(overlap="probiou", smallest_side=5.0), "prepare")(targets_of(labels, boxes), grid)
    wanted = np.zeros(count, np.int64)
    wanted[prepared.candidates.objects.numpy()] = prepared.candidates.object_cells.numpy()

    counts = count_candidates(labels, Setting(CellRule(strides=STRIDES, smallest_side=5.0), 320))

    assert counts.sum(axis=1).tolist() == wanted.tolist()


def test_anchors_are_those_that_training_matches():
    labels = scattered()
    grid = make_grid([(320 // s, 320 // s) for s in STRIDES], STRIDES, priors=ANCHORS)
    boxes = placed(labels, 320, "letterbox")
    matches = fast(AnchorRatio(), "prepare")(targets_of(labels, boxes), grid).prior_matches
    wanted = np.bincount(matches.target.numpy(), minlength=len(labels))

    counts = count_candidates(labels, Setting(PriorRule(strides=STRIDES, anchors=ANCHORS), 320))

    assert counts.sum(axis=1).tolist() == wanted.tolist()


@pytest.mark.parametrize("size", [(480, 640), (333, 500), (1200, 90)])
def test_images_are_placed_as_in_validation(size):
    labels = labels_of([(0, 0, 3, 5, 60, 80)], size=size)
    wanted = letterbox(size, (640, 640)).to_network(labels.boxes)
    assert placed(labels, 640, "letterbox") == pytest.approx(wanted, abs=1e-9)


def test_more_objects_than_queries():
    labels = labels_of([(0, 0, 10, 10, 50, 50)] * 5 + [(1, 0, 10, 10, 50, 50)] * 3)
    found = learnable(labels, Setting(QueryRule(queries=3)))
    assert found.lost.tolist() == [False, False, False, True, True, False, False, False]
    assert [(one.what, one.helped, one.of) for one in found.remedies] == [("5 queries", 2, 2)]


def test_an_object_between_the_cells_is_lost_and_each_remedy_does_what_it_says():
    # Centres around it lie at 28 and 36 (stride 8), 24 and 40 (stride 16), 16 and 48 (stride 32).
    labels = labels_of([(0, 0, 29, 29, 35, 35), (0, 1, 100, 100, 300, 300)], size=(320, 320))
    setting = Setting(CellRule(strides=STRIDES), 320)
    found = learnable(labels, setting)
    assert found.lost.tolist() == [True, False]
    assert found.luck[0] == pytest.approx((6 / 8) ** 2)
    helped = {one.what: (one.helped, one.of) for one in found.remedies if one.need == 1}
    assert helped["a level of stride 4"] == (1, 1)
    assert helped["small boxes widened to 16 px"] == (1, 1)
    (size,) = (one for one in helped if one.startswith("image size"))
    imgsz = int(size.split()[-1])
    sizes = range(352, imgsz + 1, 32)
    lost = [count_candidates(labels, replace(setting, imgsz=side)).sum(axis=1)[0] == 0 for side in sizes]
    assert lost == [True] * (len(lost) - 1) + [False], "not the smallest size that helps"


def test_anchors_that_do_not_fit_are_fitted():
    rng = np.random.default_rng(0)
    wh = np.stack((rng.uniform(300, 400, 200), rng.uniform(8, 10, 200)), axis=1)
    rows = [(i, 0, 20, 20 + i, 20 + w, 20 + i + h) for i, (w, h) in enumerate(wh)]
    found = learnable(labels_of(rows, size=(640, 640)), Setting(PriorRule(strides=STRIDES, anchors=ANCHORS)))
    assert found.lost.all()
    assert found.anchors.changed
    (remedy,) = (one for one in found.remedies if one.what.startswith("anchors"))
    assert remedy.helped > 0.9 * remedy.of


def test_roll_up_adds_up():
    labels = scattered()
    found = learnable(labels, Setting(CellRule(strides=STRIDES), 320))
    table = by_class_and_size(labels, found)
    whole = table.take((table["class"] == "all") & (table["size"] == "all"))
    single = table.take((table["class"] != "all") & (table["size"] != "all"))
    for name in ("objects", "no_candidate", "fewer_than_asked"):
        assert single[name].sum() == whole[name][0]
    assert whole["no_candidate"][0] == found.lost.sum() > 0


def test_a_split_without_objects_or_images():
    for labels in (labels_of([], images=3), labels_of([], images=0)):
        for rule in (CellRule(strides=STRIDES), PriorRule(strides=STRIDES, anchors=ANCHORS), QueryRule(queries=3)):
            found = learnable(labels, Setting(rule))
            assert len(found.lost) == 0
            assert found.remedies == ()
            assert by_class_and_size(labels, found)["objects"].sum() == 0


@pytest.mark.parametrize(
    ("name", "kind", "asked"),
    [("yolov8n", CellRule, 10), ("yolov8n-obb", CellRule, 10), ("yolov10n", CellRule, 10), ("yolov5n", PriorRule, 1),
     ("rtdetr-r18", QueryRule, 1)],
)  # fmt: skip
def test_the_rule_of_a_preset(name, kind, asked):
    setting = setting_of(preset(name), name)
    assert isinstance(setting.rule, kind)
    assert setting.rule.asked == asked
    assert (setting.imgsz, setting.model) == (640, name)
    if kind is not QueryRule:
        assert setting.rule.strides == STRIDES


def test_a_classifier_has_no_rule():
    assert setting_of(preset("yolov8n-cls")) is None
