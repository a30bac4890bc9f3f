# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from boxwright.ops import nms as module
from boxwright.ops.nms import class_aware_nms, nms


def greedy_reference(boxes, scores, labels, iou, max_kept):
    """One box after the other, best first, against every box kept before; float32 like the subject."""
    boxes, iou = boxes.numpy(), np.float32(iou)
    kept = []
    for index in sorted(range(len(boxes)), key=lambda i: (-float(scores[i]), i)):
        if len(kept) == max_kept:
            break
        if not any(labels[index] == labels[other] and pair_overlap(boxes[other], boxes[index]) > iou for other in kept):
            kept.append(index)
    return kept


def pair_overlap(a, b):
    width = max(min(a[2], b[2]) - max(a[0], b[0]), np.float32(0))
    height = max(min(a[3], b[3]) - max(a[1], b[1]), np.float32(0))
    inter = width * height
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter
    return inter / union if union > 0 else np.float32(0)


def crowd(count, *, objects, classes, seed, levels=None):
    """Noisy copies of a few objects; `levels` scores only, so that many are equal."""
    generator = torch.Generator().manual_seed(seed)
    which = torch.randint(objects, (count,), generator=generator)
    centre = torch.rand(objects, 2, generator=generator)[which] * 600 + torch.randn(count, 2, generator=generator) * 6
    side = torch.rand(objects, 2, generator=generator)[which] * 120 + 20
    scores = torch.rand(count, generator=generator)
    if levels is not None:
        scores = (scores * levels).floor() / levels
    labels = torch.randint(classes, (count,), generator=generator)
    return torch.cat((centre - side / 2, centre + side / 2), dim=1), scores, labels


@pytest.mark.parametrize("iou", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("max_kept", [1, 20, 10_000])
@pytest.mark.parametrize("levels", [None, 5])
def test_equals_the_greedy_reference(iou, max_kept, levels, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 64)  # several blocks with few boxes
    boxes, scores, labels = crowd(300, objects=8, classes=3, seed=3, levels=levels)

    kept = class_aware_nms(boxes, scores, labels, iou, max_kept)

    assert kept.tolist() == greedy_reference(boxes, scores, labels, iou, max_kept)


@pytest.mark.parametrize("count", [511, 512, 513, 1100])
def test_equals_the_greedy_reference_around_the_block_size(count):
    boxes, scores, labels = crowd(count, objects=20, classes=2, seed=count)

    kept = class_aware_nms(boxes, scores, labels, 0.6, 300)

    assert kept.tolist() == greedy_reference(boxes, scores, labels, 0.6, 300)


coordinate = st.integers(0, 12)
row = st.tuples(coordinate, coordinate, coordinate, coordinate, st.integers(0, 3), st.integers(0, 1))


@settings(max_examples=150, deadline=None)
@given(st.lists(row, max_size=24), st.sampled_from([0.1, 0.25, 0.5, 1 / 3]), st.integers(1, 30))
def test_equals_the_greedy_reference_on_a_lattice_full_of_ties_and_empty_boxes(rows, iou, max_kept):
    boxes = torch.tensor([[min(r[0], r[2]), min(r[1], r[3]), max(r[0], r[2]), max(r[1], r[3])] for r in rows])
    boxes = boxes.float().reshape(-1, 4)
    scores = torch.tensor([r[4] / 4 for r in rows], dtype=torch.float32)
    labels = torch.tensor([r[5] for r in rows], dtype=torch.int64)

    kept = class_aware_nms(boxes, scores, labels, iou, max_kept)

    assert kept.tolist() == greedy_reference(boxes, scores, labels, iou, max_kept)


def test_overlap_equal_to_the_threshold_is_kept():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5]])  # overlap exactly 0.5
    scores = torch.tensor([0.9, 0.8])

    assert nms(boxes, scores, iou=0.5).tolist() == [0, 1]
    assert nms(boxes, scores, iou=0.49).tolist() == [0]


def test_equal_scores_keep_the_lower_index():
    boxes = torch.tensor([[0.0, 0, 10, 10]] * 3)

    assert nms(boxes, torch.tensor([0.5, 0.5, 0.5]), iou=0.5).tolist() == [0]
    assert nms(boxes, torch.tensor([0.5, 0.6, 0.6]), iou=0.5).tolist() == [1]


def test_a_suppressed_box_suppresses_nothing():
    boxes = torch.tensor([[0.0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10]])  # a chain: neighbours overlap 3/7

    assert nms(boxes, torch.tensor([0.9, 0.8, 0.7]), iou=0.4).tolist() == [0, 2]


def test_classes_do_not_suppress_each_other_however_large_the_coordinates():
    boxes = torch.tensor([[20_000.0, 20_000, 20_010, 20_010], [20_000, 20_000, 20_010, 20_010]])
    scores = torch.tensor([0.9, 0.8])

    assert class_aware_nms(boxes, scores, torch.tensor([0, 79]), iou=0.5).tolist() == [0, 1]
    assert class_aware_nms(boxes, scores, torch.tensor([79, 79]), iou=0.5).tolist() == [0]


def test_boxes_without_area_are_kept_and_suppress_nothing():
    boxes = torch.tensor([[5.0, 5, 5, 5], [5, 5, 5, 5], [0, 0, 10, 10]])

    assert nms(boxes, torch.tensor([0.9, 0.8, 0.7]), iou=0.1).tolist() == [0, 1, 2]


@pytest.mark.parametrize(("count", "max_kept", "expected"), [(0, 300, []), (1, 300, [0]), (1, 0, []), (3, 0, [])])
def test_edges(count, max_kept, expected):
    boxes = torch.tensor([[0.0, 0, 10, 10]]).repeat(count, 1)

    assert nms(boxes, torch.ones(count), 0.5, max_kept).tolist() == expected


def test_float64_boxes_are_compared_in_float64():
    # overlap 1 - 1e-9: above the threshold in float64, equal to it in float32
    boxes = torch.tensor([[0.0, 0, 1, 1], [0, 0, 1, 1 - 1e-9]], dtype=torch.float64)

    assert nms(boxes, torch.tensor([0.9, 0.8]), iou=1 - 2e-9).tolist() == [0]


def test_inputs_are_left_alone():
    boxes, scores, labels = crowd(50, objects=2, classes=2, seed=0)
    before = [value.clone() for value in (boxes, scores, labels)]

    class_aware_nms(boxes, scores, labels, 0.5, 10)

    assert all(torch.equal(value, old) for value, old in zip((boxes, scores, labels), before, strict=True))
