# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.losses.scenes import criterion

from boxwright.config import from_yaml, override, replace, to_yaml
from boxwright.errors import ConfigError
from boxwright.losses.balance import (
    GivenClassWeights,
    InverseFrequency,
    LogFrequency,
    NoClassWeights,
    PowerFrequency,
)
from boxwright.losses.criterion import Criterion
from boxwright.losses.terms import SoftScores

RULES = [InverseFrequency(), LogFrequency(), PowerFrequency(), PowerFrequency(power=1.0)]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (InverseFrequency(), (0.533333, 1.066667, 5.333333)),
        (LogFrequency(), (0.416717, 0.557076, 1.422278)),
        (PowerFrequency(power=0.5), (0.537973, 0.760808, 1.701219)),
        (PowerFrequency(power=0.0), (1.0, 1.0, 1.0)),
        (GivenClassWeights(values=(3.0, 0.0, 2.0)), (3.0, 0.0, 2.0)),
    ],
)
def test_example_of_the_specification(rule, expected):
    assert rule.of((100, 50, 10)) == pytest.approx(expected, abs=5e-7)


def test_none_is_none():
    assert NoClassWeights().of((0, 0)) is None


def test_absent_classes_get_the_mean_of_the_present_ones():
    # By hand: inverse of (100, 10) is 110 / (2 * n) = (0.55, 5.5) with mean 3.025.
    assert InverseFrequency().of((100, 0, 10)) == pytest.approx((0.55, 3.025, 5.5))
    log = LogFrequency().of((100, 0, 10))
    assert log == pytest.approx((0.416717, (0.416717 + 1.422278) / 2, 1.422278), abs=1e-6)
    # Before the division by the mean: (0.1, ., 0.5) of counts 100 and 4, absent 0.3, mean 0.3.
    assert PowerFrequency(power=0.5).of((100, 0, 4)) == pytest.approx((1 / 3, 1.0, 5 / 3))


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=20).filter(any))
@pytest.mark.parametrize("rule", RULES)
def test_rarer_classes_never_weigh_less_and_all_weights_are_positive(rule, counts):
    weights = rule.of(counts)

    present = sorted((count, weight) for count, weight in zip(counts, weights, strict=True) if count)
    assert all(weight > 0 for weight in weights)
    assert all(later[1] <= earlier[1] * (1 + 1e-12) for earlier, later in itertools.pairwise(present))


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=20).filter(any), st.floats(0, 1))
def test_power_weights_average_one(counts, power):
    weights = PowerFrequency(power=power).of(counts)

    assert sum(weights) / len(weights) == pytest.approx(1.0)


@given(st.integers(1, 10**6), st.integers(1, 9))
def test_equal_counts_of_inverse_frequency_give_one(count, classes):
    assert InverseFrequency().of([count] * classes) == pytest.approx([1.0] * classes)


@pytest.mark.parametrize("rule", RULES)
def test_no_label_at_all_is_an_error(rule):
    with pytest.raises(ConfigError, match=r"class_weights: expected counts .* got \[0, 0\]"):
        rule.of((0, 0))


@pytest.mark.parametrize(
    ("settings", "kind", "vector", "mode"),
    [
        (["criterion.class_weights.kind=inverse"], "inverse", (0.533333, 1.066667, 5.333333), "positive"),
        (
            ["criterion.class_weights.kind=log", "criterion.class_weights.mode=both"],
            "log",
            (0.416717, 0.557076, 1.422278),
            "both",
        ),
        (["criterion.class_weights={kind: power, power: 0.5}"], "power", (0.537973, 0.760808, 1.701219), "both"),
        (["criterion.class_weights={kind: explicit, values: [1, 2, 3]}"], "explicit", (1.0, 2.0, 3.0), "positive"),
    ],
)
def test_one_setting_switches_them_on(settings, kind, vector, mode):
    rules = override(criterion(), [setting.removeprefix("criterion.") for setting in settings])

    resolved = rules.with_class_counts((100, 50, 10))

    terms = resolved.rules["main"].terms
    assert rules.class_weights.kind == kind
    assert terms["cls"].term.class_weights == pytest.approx(vector, abs=5e-7)
    assert terms["cls"].term.weight_mode == mode
    assert (terms["box"], terms["cls"].gain) == (rules.rules["main"].terms["box"], 0.5)
    assert rules.rules["main"].terms["cls"].term.class_weights is None  # the original is as it was
    assert from_yaml(Criterion, to_yaml(resolved)) == resolved
    assert resolved.with_class_counts((1, 1, 1)) == resolved  # numbers stay, so that a resumed run has the same


def test_numbers_of_a_single_term_win():
    main = criterion().rules["main"]
    named = replace(main.terms["cls"], term=SoftScores(class_weights=(7.0, 8.0, 9.0), weight_mode="both"))
    rules = Criterion(
        rules={"main": main, "one2one": replace(main, terms=main.terms | {"cls": named})},
        class_weights=InverseFrequency(),
    )

    resolved = rules.with_class_counts((1, 1, 1))

    assert resolved.rules["main"].terms["cls"].term.class_weights == (1.0, 1.0, 1.0)
    assert resolved.rules["one2one"].terms["cls"] == named


def test_a_criterion_without_a_class_term_says_so():
    main = criterion().rules["main"]
    rules = Criterion(rules={"main": replace(main, terms={"box": main.terms["box"]})}, class_weights=LogFrequency())

    with pytest.raises(ConfigError, match=r"criterion.class_weights: no term .*takes class weights"):
        rules.with_class_counts((1, 2))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("class_weights.kind=invers", r"class_weights.kind: expected one of none, inverse, log, power, explicit"),
        ("class_weights={kind: power, power: 1.5}", r"class_weights.power: expected less than or equal to 1, got 1.5"),
        ("class_weights={kind: power, rho: 1}", r"class_weights.rho: unknown key"),
        ("class_weights={kind: log, mode: half}", r"class_weights.mode: expected 'positive' or 'both', got 'half'"),
        ("class_weights={kind: explicit, values: [a]}", r"class_weights.values.0: expected a number, got 'a'"),
    ],
)
def test_a_mistake_names_its_path(setting, message):
    with pytest.raises(ConfigError, match=message):
        override(criterion(), [setting])


def test_a_wrong_number_of_given_weights_is_an_error():
    with pytest.raises(ConfigError, match=r"class_weights.values: expected 3 numbers, one for each class, got 2"):
        GivenClassWeights(values=(1.0, 2.0)).of((5, 5, 5))
