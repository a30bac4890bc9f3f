# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""What the faster terms of a rule share, and what plain predictions say beside it."""

import dataclasses

import pytest
import torch
from tests.losses.anchor_scenes import joined, pyramid, random_maps
from tests.losses.dense_scenes import scene
from tests.losses.scenes import generator, random_targets

from boxwright.errors import ShapeError
from boxwright.losses.assign import AnchorRatio, TaskAligned
from boxwright.losses.shared import SharedPredictions, shared_value
from boxwright.structures import Assignment, Predictions

READS = ("raw_at", "logits_at", "coefs_at", "keypoints_at")


def with_table() -> tuple[Predictions, Assignment]:
    preds = joined(random_maps(generator(0), 2, pyramid()), pyramid()).final
    return preds, AnchorRatio()(preds, random_targets(generator(1), (3, 2)))


@pytest.mark.parametrize("head", ["segment", "pose", "table"])
def test_every_method_means_what_it_means_without(head):
    if head == "table":
        preds, pairs = with_table()
    else:
        outputs, targets = scene(head, (3, 2))
        preds, pairs = outputs.final, TaskAligned()(outputs.final, targets)
    shared = SharedPredictions.of(preds, pairs)

    for name in READS:
        if (name == "coefs_at" and preds.mask_coefs is None) or (
            name == "keypoints_at" and preds.keypoints_raw is None
        ):
            with pytest.raises(ShapeError, match="got None"):
                getattr(shared, name)(pairs)
            continue
        assert torch.equal(getattr(shared, name)(pairs), getattr(preds, name)(pairs)), name
    assert torch.equal(shared.boxes_at(pairs), preds.boxes_at(pairs))
    if preds.objectness is not None:
        assert torch.equal(shared.objectness_plane, preds.objectness_plane)
    for field in dataclasses.fields(Predictions):
        assert getattr(shared, field.name) is getattr(preds, field.name)


def test_rows_are_gathered_once_and_for_these_pairs_only():
    preds, pairs = with_table()
    shared = SharedPredictions.of(preds, pairs)
    other = dataclasses.replace(pairs, anchor=pairs.anchor.flip(0))

    assert shared.raw_at(pairs) is shared.raw_at(pairs)
    assert shared.logits_at(pairs) is shared.logits_at(pairs)
    assert torch.equal(shared.raw_at(other), preds.raw_at(other))
    assert not torch.equal(shared.raw_at(other), shared.raw_at(pairs))


def test_a_value_is_computed_once_for_the_terms_of_a_rule():
    preds, pairs = with_table()
    calls = []

    def compute() -> int:
        calls.append(1)
        return len(calls)

    shared = SharedPredictions.of(preds, pairs)
    assert [shared_value(shared, pairs, "number", compute) for _ in range(3)] == [1, 1, 1]
    # Not kept: plain predictions, other pairs, and what the caller alone may use.
    other = dataclasses.replace(pairs)
    assert [shared_value(preds, pairs, "number", compute) for _ in range(2)] == [2, 3]
    assert [shared_value(shared, other, "number", compute) for _ in range(2)] == [4, 5]
    assert [shared_value(shared, pairs, "another", compute, keep=False) for _ in range(2)] == [6, 7]


def test_a_copy_for_another_rule_shares_nothing():
    preds, pairs = with_table()

    first, second = (SharedPredictions.of(preds, pairs) for _ in range(2))
    shared_value(first, pairs, "number", lambda: 1)

    assert shared_value(second, pairs, "number", lambda: 2) == 2
