# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import math

import pytest
import torch

from boxwright.ops import rotated_nms as module
from boxwright.ops.probiou import paired_probiou
from boxwright.ops.rotated_nms import rotated_nms


def brute_force(boxes, scores, labels, iou, limit=None):
    """Every pair, one box after the other."""
    order = scores.argsort(descending=True, stable=True).tolist()
    kept = []
    for place, index in enumerate(order):
        better = [j for j in order[:place] if labels is None or labels[j] == labels[index]]
        overlaps = paired_probiou(boxes[index].expand(len(better), 5), boxes[better])
        if max(overlaps.tolist(), default=-1.0) < iou:
            kept.append(index)
    return kept[:limit]


def random_boxes(count, seed=0, spread=60.0):
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape):
        return torch.rand(*shape, generator=generator)

    sides, angle = uniform(count, 2) * 30 + 2, uniform(count, 1) * 4 - 1
    scores = (uniform(count) * 20).round() / 20  # with ties
    return torch.cat((uniform(count, 2) * spread, sides, angle), dim=1), scores, (uniform(count) * 3).long()


@pytest.mark.parametrize("iou", [0.0, 0.1, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("agnostic", [False, True])
def test_equals_brute_force(iou, agnostic, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 16)  # several blocks
    boxes, scores, labels = random_boxes(60)
    labels = None if agnostic else labels

    assert rotated_nms(boxes, scores, labels, iou).tolist() == brute_force(boxes, scores, labels, iou)


def test_what_a_suppressed_box_overlaps_is_suppressed_too():
    # 12 px squares 6 px apart: neighbours reach 0.38, the outer two 0.12
    boxes = torch.tensor([[0.0, 0, 12, 12, 0], [6, 0, 12, 12, 0], [12, 0, 12, 12, 0]])
    scores = torch.tensor([0.9, 0.8, 0.7])

    assert rotated_nms(boxes, scores, None, 0.3).tolist() == [0]
    assert rotated_nms(boxes, scores, None, 0.45).tolist() == [0, 1, 2]


def test_an_overlap_equal_to_the_threshold_is_suppressed_and_ties_go_to_the_first():
    box = torch.tensor([[5.0, 5, 12, 12, 0.3], [8, 5, 12, 12, 0.3]])
    equal = paired_probiou(box[1], box[0]).item()

    assert rotated_nms(box, torch.tensor([0.5, 0.5]), None, equal).tolist() == [0]
    assert rotated_nms(box, torch.tensor([0.5, 0.5]), None, math.nextafter(equal, 1) + 1e-6).tolist() == [0, 1]


def test_the_limit_takes_the_best_and_nothing_is_fine():
    boxes, scores, labels = random_boxes(50, seed=1)
    everything = rotated_nms(boxes, scores, labels, 0.5)

    assert torch.equal(rotated_nms(boxes, scores, labels, 0.5, 4), everything[:4])
    assert rotated_nms(boxes, scores, labels, 0.5, 0).tolist() == []
    assert rotated_nms(boxes[:0], scores[:0], labels[:0], 0.5).tolist() == []


def test_long_thin_boxes_reach_far():
    # 400 px long, 40 px apart along their length: alike, though their centres are far apart for their width
    boxes = torch.tensor([[0.0, 0, 400, 4, 0.5], [40 * math.cos(0.5), 40 * math.sin(0.5), 400, 4, 0.5]])
    assert rotated_nms(boxes, torch.tensor([0.9, 0.8]), None, 0.7).tolist() == [0]
