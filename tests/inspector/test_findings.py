# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Every kind of finding: a batch that triggers it, and one that does not."""

from dataclasses import replace

import pytest
import torch

from boxwright.inspector.findings import RULES, findings_of
from boxwright.inspector.probe import inspect
from boxwright.inspector.rollups import roll_up
from boxwright.losses.dense_recipes import yolov8_detect
from boxwright.ops.decode import Distance
from boxwright.ops.grid import grid_for_image
from boxwright.structures import Outputs, Predictions, Targets

SIZE, NAMES = (128, 128), ("cat", "dog")


def outputs(logit=-4.0):
    grid = grid_for_image(SIZE, (8, 16, 32))
    count = len(grid.points)
    return Outputs(
        Predictions(torch.full((1, count, 2), logit), torch.zeros(1, count, 64), Distance(num_bins=16), grid)
    )


def targets(*boxes, labels=None):
    tensor = torch.tensor([boxes], dtype=torch.float32).reshape(1, len(boxes), 4)
    chosen = torch.tensor([labels or [0] * len(boxes)], dtype=torch.int64).reshape(1, len(boxes))
    return Targets(chosen, tensor, torch.ones(1, len(boxes), dtype=torch.bool))


def codes(found, labels, criterion=None):
    return {f.code for f in findings_of(inspect(found, labels, criterion or yolov8_detect(), names=NAMES))}


CALM = ((32.0, 32.0, 96.0, 96.0),)


def test_a_plain_batch_has_no_finding_but_the_class_term_dominates_early():
    assert codes(outputs(), targets(*CALM)) <= {"dominant_term"}


def test_a_box_without_a_cell_learns_nothing():
    found = findings_of(inspect(outputs(), targets(*CALM, (5.0, 5.0, 7.0, 7.0)), yolov8_detect(), names=NAMES))

    (lonely,) = [f for f in found if f.code == "no_positive"]
    assert (lonely.image, lonely.object) == (0, 1)
    assert "3 outside box" in lonely.message


def test_twins_contest_their_cells():
    assert "contested" in codes(outputs(), targets(*CALM, *CALM))
    assert "contested" not in codes(outputs(), targets(*CALM))


def test_a_side_beyond_the_bins_is_clipped():
    wide = Outputs(replace(outputs().final, decoder=Distance(num_bins=4), box_raw=torch.zeros(1, 336, 16)))

    assert "clipped_distance" in codes(wide, targets((0.0, 0.0, 128.0, 128.0)))
    assert "clipped_distance" not in codes(wide, targets((60.0, 60.0, 76.0, 76.0)))


def test_a_term_without_gain_is_silent():
    quiet = yolov8_detect(gains={"dfl": 0.0})

    found = findings_of(inspect(outputs(), targets(*CALM), quiet))
    assert [f.term for f in found if f.code == "silent_term"] == ["main/dfl"]


def test_what_is_not_finite_is_named():
    broken = outputs()
    broken.final.logits[0, 5, 0] = torch.nan

    found = findings_of(inspect(broken, targets(*CALM), yolov8_detect()))
    assert found[0].code == "not_finite"
    assert found[0].term == "main/cls"
    assert "nan in image 0, no object, candidate 5" in found[0].message


def sure(made, spot, reach):
    """A candidate that is sure of a dog in the box at these distances (strides of 8 px: left, top, right, bottom)."""
    made.final.logits[0, spot, 1] = 4.0
    raw = made.final.box_raw.view(1, -1, 4, 16)
    raw[0, spot] = -20.0
    for side, bins in enumerate(reach):
        raw[0, spot, side, bins] = 20.0


LABEL = targets((36.0, 36.0, 92.0, 92.0))


def test_a_sure_find_far_from_every_label_is_named():
    made = outputs()
    sure(made, 3, [1, 1, 1, 1])

    assert "no_label_there" in codes(made, LABEL)
    assert "no_label_there" not in codes(outputs(), LABEL)


def test_neighbours_that_find_the_same_thing_are_one_finding():
    made = outputs()
    sure(made, 3, [1, 1, 2, 1])
    sure(made, 4, [2, 1, 1, 1])  # the next cell finds the same box
    sure(made, 12, [1, 1, 1, 1])  # another place

    found = findings_of(inspect(made, LABEL, yolov8_detect(), names=NAMES, paths=("somewhere/a.jpg",)))
    messages = [finding.message for finding in found if finding.code == "no_label_there"]

    assert len(messages) == 2
    assert all(message.startswith("image 0 (a.jpg): dog") for message in messages)


def test_a_sure_find_on_a_label_of_another_class_is_named():
    made = outputs()
    # Two neighbours find the labelled box: the object takes one of them, the other stays background.
    sure(made, 5 * 16 + 7, [3, 1, 4, 6])
    sure(made, 5 * 16 + 8, [4, 1, 3, 6])

    assert "other_class_there" in codes(made, LABEL, yolov8_detect(topk=1))
    assert "other_class_there" not in codes(outputs(), LABEL, yolov8_detect(topk=1))


def test_every_rule_accepts_an_empty_batch():
    empty = inspect(outputs(), targets(), yolov8_detect())

    assert [list(rule(empty)) for rule in RULES if rule.__name__ not in ("dominant", "silent")] == [[]] * 6


def test_roll_ups_sum_to_what_objects_pay():
    inspection = inspect(
        outputs(), targets(*CALM, (5.0, 5.0, 7.0, 7.0), (10.0, 60.0, 40.0, 90.0), labels=[0, 1, 1]), yolov8_detect(),
        names=NAMES,
    )  # fmt: skip

    for by in ("class", "size", "image", "level"):
        table = roll_up(inspection, by)
        assert table["loss"].sum() == pytest.approx(inspection.objects["loss"].sum(), rel=1e-9), by
    by_class = {row["class"]: row for row in roll_up(inspection, "class").rows()}
    assert (by_class["dog"]["objects"], by_class["dog"]["without_positive"]) == (2, 1)
    assert roll_up(inspection, "size")["size"].tolist() == ["small", "medium"]


def test_an_object_with_one_positive_is_not_without():
    lonely = (5.0, 5.0, 7.0, 7.0)
    labels = targets(*CALM, lonely, (10.0, 60.0, 40.0, 90.0), labels=[0, 1, 1])

    inspection = inspect(outputs(), labels, yolov8_detect(topk=1), names=NAMES)

    assert inspection.objects["positives"].tolist() == [1, 0, 1]
    counts = {row["class"]: row["without_positive"] for row in roll_up(inspection, "class").rows()}
    assert counts == {"cat": 0, "dog": 1}


@pytest.mark.parametrize(("half", "clipped"), [(23.96, True), (23.84, False)])
def test_a_side_a_hundredth_of_a_bin_from_the_last_is_clipped(half, clipped):
    """Half sides of 2.995 and 2.98 strides, as the cell in the middle sees them; the last of four bins is at 3."""
    grid = grid_for_image(SIZE, (8,))
    flat = torch.zeros(1, len(grid.points), 16)
    one_level = Outputs(Predictions(torch.full((1, len(grid.points), 2), -4.0), flat, Distance(num_bins=4), grid))
    labels = targets((60 - half, 60 - half, 60 + half, 60 + half))

    inspection = inspect(one_level, labels, yolov8_detect(topk=1), names=NAMES)

    assert inspection.pairs["wanted_left"].tolist() == pytest.approx([half / 8], rel=1e-5)
    assert inspection.pairs["clipped"].tolist() == [clipped]
