# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""What `Angle` shares with other terms on oriented boxes (gradcheck, no pairs, extremes) is in test_oriented.py."""

import dataclasses
import math

import pytest
import torch
from tests.losses.scenes import generator, make_targets, random_predictions
from tests.losses.terms.test_box import pairs
from tests.losses.terms.test_oriented import BOXES, TARGETS, scene, shares

from boxwright.errors import ConfigError, ShapeError
from boxwright.losses.terms import Angle


def test_angle_equals_a_loop():
    preds = scene()

    got = Angle()(preds, TARGETS, pairs())

    expected = []
    for image, anchor, slot, share in shares():
        _, _, w, h, theta = BOXES[image, slot].tolist()
        square = math.exp(-(math.log(w / h) ** 2) / 9)
        expected.append(square * math.sin(2 * (preds.angle[image, anchor].item() - theta)) ** 2 * share)
    assert got.tolist() == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize(("turns", "value"), [(0.0, 0.0), (0.25, 0.0), (0.5, 0.0), (0.125, 1.0), (-0.375, 1.0)])
def test_angle_of_a_square_has_the_period_of_a_quarter_turn(turns, value):
    preds = scene()
    box = torch.tensor([[[20.0, 20.0, 30.0, 30.0, 0.3]] * 2] * 2, dtype=torch.float64)
    turned = dataclasses.replace(preds, angle=torch.full_like(preds.angle, 0.3 + turns * 2 * math.pi))

    got = Angle()(turned, dataclasses.replace(TARGETS, boxes=box), pairs())

    assert got.tolist() == pytest.approx([value * x for x in (0.25, 0.5, 0.125, 0.0)], abs=1e-12)


def test_angle_needs_angles_on_both_sides():
    with pytest.raises(ShapeError, match=r"Predictions.angle: expected \(B, A\) radians"):
        Angle()(random_predictions(generator(0), 2), TARGETS, pairs())
    with pytest.raises(ShapeError, match=r"Targets.boxes: expected \(B, M, 5\) .*got \(2, 1, 4\)"):
        Angle()(scene(), make_targets([(0, 0, 9, 9)], [(0, 0, 9, 9)]), pairs())


def test_an_elongation_of_zero_is_refused():
    with pytest.raises(ConfigError, match=r"Angle.elongation: expected a positive number, got 0.0"):
        Angle(elongation=0.0)
