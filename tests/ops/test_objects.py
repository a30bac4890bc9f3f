# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import math

import pytest
import torch
from tests.losses.scenes import make_targets

from boxwright.errors import ShapeError
from boxwright.ops.objects import check_labels, object_rows, with_objects
from boxwright.structures import Targets

BOX = (0.0, 0.0, 9.0, 9.0)


def test_rows_go_by_image_then_slot_and_skip_unused_slots():
    targets = make_targets([BOX, BOX], [], [BOX], labels=[[1, 4], [], [2]], slots=3)
    order = torch.tensor([2, 0, 1])  # the unused slot first
    targets = Targets(targets.labels[:, order], targets.boxes[:, order], targets.valid[:, order])

    rows = object_rows(targets)

    assert (rows.image.tolist(), rows.slot.tolist()) == ([0, 0, 2], [1, 2, 1])
    assert (rows.counts, rows.slots, rows.labels_below) == ((2, 0, 1), 3, 5)


def test_nothing_is_an_empty_list():
    rows = object_rows(make_targets([], []))

    assert (rows.image.shape, rows.counts, rows.slots, rows.labels_below) == ((0,), (0, 0), 0, 0)


def test_unused_slots_may_hold_anything():
    targets = make_targets([BOX], [BOX])
    targets.labels[1, 0], targets.boxes[1, 0, 0] = -5, math.nan
    unused = Targets(targets.labels, targets.boxes, torch.tensor([[True], [False]]))

    assert object_rows(unused).counts == (1, 0)


def test_laid_out_once_and_refused_for_other_targets():
    targets = with_objects(make_targets([BOX], [BOX]))

    assert with_objects(targets) is targets
    with pytest.raises(ShapeError, match=r"rows for \(B, M\) = \(1, 1\), got \(2, 1\); call .Criterion.prepare. again"):
        with_objects(Targets(targets.labels[:1], targets.boxes[:1], targets.valid[:1], prepared=targets.prepared))


def test_moves_with_the_targets():
    moved = with_objects(make_targets([BOX])).to("meta")

    assert moved.objects.image.device.type == moved.objects.slot.device.type == "meta"


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (make_targets([BOX, BOX], labels=[[0, -3]]), "expected class indices of at least 0, got -3 at image 0, slot 1"),
        (make_targets([(0, 0, math.inf, 9)]), "expected finite pixels, got .* at image 0, slot 0"),
    ],
)
def test_labels_that_cannot_be_are_named(targets, message):
    with pytest.raises(ShapeError, match=message):
        object_rows(targets)


def test_a_class_that_does_not_exist_is_named():
    rows = object_rows(make_targets([BOX], labels=[[3]]))

    check_labels(rows, 4)
    with pytest.raises(ShapeError, match=r"class indices below 3, .* got 3"):
        check_labels(rows, 3)
