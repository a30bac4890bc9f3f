# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Traces against the pairs they explain."""

import pytest
import torch

from boxwright.losses.assign.anchor_ratio import AnchorRatio
from boxwright.losses.assign.atss import ATSS
from boxwright.losses.assign.hungarian import Hungarian
from boxwright.losses.assign.known import Known
from boxwright.losses.assign.simota import SimOTA
from boxwright.losses.assign.task_aligned import TaskAligned
from boxwright.losses.assign.trace import FATES, trace_of
from boxwright.ops.decode import Anchor, Distance, Normalized
from boxwright.ops.grid import grid_for_image
from boxwright.structures import Predictions, Targets

SIZE, STRIDES, CLASSES = (96, 128), (8, 16, 32), 3
ANCHORS = [[(10, 13), (16, 30)], [(30, 61), (62, 45)], [(90, 80), (110, 60)]]


def crowd(seed, count=7):
    """Two images of overlapping boxes, the second with an empty slot and a box that holds no cell centre."""
    make = torch.Generator().manual_seed(seed)
    low = torch.rand(2, count, 2, generator=make) * torch.tensor([90.0, 60.0])
    side = 6 + torch.rand(2, count, 2, generator=make) * 60
    boxes = torch.cat((low, low + side), dim=-1)
    boxes[1, 0] = torch.tensor([5.0, 5.0, 7.0, 7.0])
    valid = torch.ones(2, count, dtype=torch.bool)
    valid[1, -1] = False
    labels = torch.randint(CLASSES, (2, count), generator=make)
    return Targets(labels * valid, boxes * valid[..., None], valid)


def dense(seed):
    make = torch.Generator().manual_seed(seed)
    grid = grid_for_image(SIZE, STRIDES)
    count = len(grid.points)
    logits, raw = torch.randn(2, count, CLASSES, generator=make), torch.randn(2, count, 64, generator=make)
    return Predictions(logits, raw, Distance(num_bins=16), grid)


def anchored(seed):
    make = torch.Generator().manual_seed(seed)
    grid = grid_for_image(SIZE, STRIDES, priors=ANCHORS)
    count = len(grid.points)
    logits, raw = torch.randn(2, count, CLASSES, generator=make), torch.randn(2, count, 4, generator=make)
    return Predictions(logits, raw, Anchor(), grid, objectness=torch.zeros(2, count))


def queries(seed):
    make = torch.Generator().manual_seed(seed)
    logits, raw = torch.randn(2, 30, CLASSES, generator=make), torch.rand(2, 30, 4, generator=make)
    return Predictions(logits, raw, Normalized(), role="decoder", input_size=SIZE)


CASES = [
    (TaskAligned(), dense),
    (TaskAligned(topk=2), dense),
    (TaskAligned(topk=5, topk2=1), dense),
    (TaskAligned(level_range=(1.0, 4.0)), dense),
    (SimOTA(), dense),
    (ATSS(), dense),
    (AnchorRatio(), anchored),
    (Hungarian(), queries),
]
IDS = ["aligned", "aligned-2", "aligned-5-1", "aligned-levels", "simota", "atss", "anchor", "hungarian"]


def held(pairs):
    rows = pairs.valid
    return set(zip(pairs.image[rows].tolist(), pairs.target[rows].tolist(), pairs.anchor[rows].tolist(), strict=True))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("assigner", "make"), CASES, ids=IDS)
def test_positives_are_the_pairs_and_losers_name_who_won(assigner, make, seed):
    preds, targets = make(seed), crowd(seed)
    pairs = assigner(preds, targets)
    made = held(pairs)

    trace = trace_of(assigner, preds, targets, pairs)

    rows = list(zip(trace.image.tolist(), trace.slot.tolist(), trace.anchor.tolist(), strict=True))
    fates = trace.fates()
    assert len(set(rows)) == len(rows)
    assert {row for row, fate in zip(rows, fates, strict=True) if fate == "positive"} == made
    for (image, _, anchor), fate, other in zip(rows, fates, trace.other.tolist(), strict=True):
        assert (other >= 0) == (fate == "lost")
        if fate == "lost":
            assert (image, other, anchor) in made
    assert {(row[0], row[1]) for row in rows} == set(map(tuple, targets.valid.nonzero().tolist()))


@pytest.mark.parametrize(("assigner", "make"), CASES, ids=IDS)
def test_ranks_follow_the_metric(assigner, make):
    preds, targets = make(1), crowd(1)

    trace = trace_of(assigner, preds, targets, assigner(preds, targets))

    for image, slot in targets.valid.nonzero().tolist():
        mine = (trace.image == image) & (trace.slot == slot)
        assert trace.rank[mine].tolist() == list(range(int(mine.sum())))
        known = trace.metric[mine][~trace.metric[mine].isnan()]
        assert (known.diff() <= 0).all()


def test_every_cell_inside_a_box_has_a_row_and_a_reason():
    preds, targets = dense(2), crowd(2)
    assigner = TaskAligned(topk=3)

    trace = trace_of(assigner, preds, targets, assigner(preds, targets))

    points, fates = preds.cells.points, trace.fates()
    for image, slot in targets.valid.nonzero().tolist():
        x1, y1, x2, y2 = targets.boxes[image, slot].tolist()
        inside = {i for i, (x, y) in enumerate(points.tolist()) if x1 < x < x2 and y1 < y < y2}
        rows = ((trace.image == image) & (trace.slot == slot)).nonzero()[:, 0].tolist()
        if not inside:
            assert [fates[row] for row in rows] == ["outside_box"] * len(STRIDES)
            continue
        assert {int(trace.anchor[row]) for row in rows} == inside
        for row in rows:
            if fates[row] == "outside_topk":
                assert trace.rank[row] >= 3
            assert fates[row] != "outside_box"


def test_the_tiny_box_holds_no_cell():
    preds, targets = dense(0), crowd(0)

    trace = trace_of(TaskAligned(), preds, targets, TaskAligned()(preds, targets))

    mine = (trace.image == 1) & (trace.slot == 0)
    assert {FATES[code] for code in trace.fate[mine].tolist()} == {"outside_box"}


def test_cells_of_other_levels_say_so():
    preds, targets = dense(0), crowd(0)
    assigner = TaskAligned(level_range=(1.0, 4.0))

    trace = trace_of(assigner, preds, targets, assigner(preds, targets))

    assert "outside_level_range" in trace.fates()
    plain = trace_of(TaskAligned(), preds, targets, TaskAligned()(preds, targets))
    assert len(plain.anchor) == len(trace.anchor)


def test_a_prior_of_another_size_says_its_ratio():
    preds, targets = anchored(0), crowd(0)

    trace = trace_of(AnchorRatio(), preds, targets, AnchorRatio()(preds, targets))

    for code, metric in zip(trace.fate.tolist(), trace.metric.tolist(), strict=True):
        assert (FATES[code] == "positive") == (-metric < 4.0)


def test_an_assigner_without_a_trace_shows_its_pairs():
    preds, targets = queries(0), crowd(0)
    pairs = Hungarian()(preds, targets)
    known = Predictions(preds.logits, preds.box_raw, Normalized(), role="denoise", input_size=SIZE, known=pairs)

    trace = trace_of(Known(), known, targets, Known()(known, targets))

    assert set(trace.fates()) == {"positive"}
    assert len(trace.anchor) == len(held(pairs))
