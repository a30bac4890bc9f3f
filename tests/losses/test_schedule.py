# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import dataclasses
import math

import pytest
from tests.losses.scenes import criterion, generator, random_predictions, random_targets

from boxwright.config import from_yaml, override, to_yaml
from boxwright.errors import ConfigError
from boxwright.losses.criterion import Criterion
from boxwright.losses.schedule import Cosine, Linear, Switch, value_at
from boxwright.structures import Outputs


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (2.0, (2.0, 2.0, 2.0, 2.0, 2.0)),
        (0.5, (0.5, 0.5, 0.5, 0.5, 0.5)),
        (Linear(start=0.8, end=0.1), (0.8, 0.625, 0.45, 0.1, 0.1)),
        (Cosine(start=2.0, end=0.0), (2.0, 1 + math.sqrt(0.5), 1.0, 0.0, 0.0)),
        (Switch(start=1.0, end=3.0, when=0.5), (1.0, 1.0, 3.0, 3.0, 3.0)),
        (Switch(start=1.0, end=3.0, when=0.0), (3.0, 3.0, 3.0, 3.0, 3.0)),
    ],
)
def test_values_by_hand(schedule, expected):
    assert [value_at(schedule, progress) for progress in (0.0, 0.25, 0.5, 1.0, 1.5)] == pytest.approx(expected)


SETTINGS = [
    "rules.main.terms.box.gain={kind: cosine, start: 7.5, end: 1}",
    "rules.main.terms.box.gain.start=5",
    "rules.main.scale={kind: switch, start: 1, end: 0.5}",
    "rules.main.terms.cls.gain={kind: linear, start: 1, end: 0}",
    "rules.main.terms.cls.gain.end=0.25",
]


def test_every_gain_and_scale_may_be_a_schedule_by_settings():
    rules = override(criterion(), SETTINGS)

    assert rules.rules["main"].terms["box"].gain == Cosine(start=5.0, end=1.0)
    assert rules.rules["main"].terms["cls"].gain == Linear(start=1.0, end=0.25)
    assert rules.rules["main"].scale == Switch(start=1.0, end=0.5, when=0.5)
    assert from_yaml(Criterion, to_yaml(rules)) == rules


def test_the_loss_follows_the_schedules():
    preds, targets = random_predictions(generator(0), 2), random_targets(generator(0), (3, 4))
    scheduled, plain = override(criterion(), SETTINGS), criterion()

    for progress, box, cls, dfl in ((0.0, 5.0, 1.0, 1.5), (0.5, 3.0 / 2, 0.625 / 2, 1.5 / 2), (1.0, 0.5, 0.125, 0.75)):
        got = scheduled(Outputs(preds), targets, progress).scalars()
        unit = plain(Outputs(preds), targets).scalars()
        assert got["main/box"] == pytest.approx(unit["main/box"] / 7.5 * box)
        assert got["main/cls"] == pytest.approx(unit["main/cls"] / 0.5 * cls)
        assert got["main/dfl"] == pytest.approx(unit["main/dfl"] / 1.5 * dfl)


def test_a_kind_may_be_changed_by_a_setting():
    rules = override(criterion(), [*SETTINGS, "rules.main.terms.box.gain.kind=linear"])

    assert rules.rules["main"].terms["box"].gain == Linear(start=5.0, end=1.0)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("rules.main.terms.box.gain=lots", r"rules.main.terms.box.gain: expected a number"),
        ("rules.main.terms.box.gain.start=1", r"rules.main.terms.box.gain.start: .* is a plain value"),
        ("rules.main.terms.cls.gain={kind: linear, start: 1}", r"rules.main.terms.cls.gain.end: missing"),
        (
            "rules.main.terms.cls.gain={kind: linear, start: 1, end: x}",
            r"terms.cls.gain.end: expected a number",
        ),
        ("rules.main.scale={kind: switch, start: 1, end: 0, when: 2}", r"Switch.when: expected a share .* got 2"),
        (
            "rules.main.terms.box.gain={kind: square, start: 1, end: 0}",
            r"gain.*: expected .*linear' or 'cosine' or 'switch'",
        ),
    ],
)
def test_a_mistake_names_its_path(setting, message):
    with pytest.raises(ConfigError, match=message):
        override(criterion(), [setting])


def test_schedules_are_plain_values():
    assert dataclasses.astuple(Cosine(start=1.0, end=0.0)) == ("cosine", 1.0, 0.0)
