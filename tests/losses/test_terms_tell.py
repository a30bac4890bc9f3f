# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""What a term says about itself, and what holds for a callable that says nothing."""

import dataclasses
from typing import get_args

import pytest
import torch
from tests.losses.scenes import generator, random_predictions, random_targets
from torch import Tensor

from boxwright.inspector.shares import shares_of
from boxwright.losses.assign import TaskAligned
from boxwright.losses.balance import GivenClassWeights, InverseFrequency
from boxwright.losses.criterion import Criterion, Rule, Weighted
from boxwright.losses.terms import BoxOverlap, BuiltInTerm, HardScores, Objectness, SoftScores
from boxwright.losses.terms.base import (
    LevelBalance,
    divides_by,
    takes_class_weights,
    with_class_weights,
)
from boxwright.losses.terms.objectness import AutoBalance
from boxwright.structures import Assignment, Grid, LossItem, Outputs, Predictions, Targets

TERMS = get_args(get_args(BuiltInTerm)[0])
ABOUT_CLASSES = {
    "soft_scores",
    "focal_scores",
    "quality_focal_scores",
    "varifocal_scores",
    "hard_scores",
    "exclusive_scores",
    "query_scores",
    "query_varifocal_scores",
}


def build(part: type) -> object:
    return part(name="loc") if part.__name__ == "Attribute" else part()


def plain(preds: Predictions, targets: Targets, pairs: Assignment) -> Tensor:
    return pairs.share


@dataclasses.dataclass(frozen=True)
class Fielded:
    """A stranger's term with the two fields that class weights go to, and no method."""

    class_weights: tuple[float, ...] | None = None
    weight_mode: str = "positive"

    def __call__(self, preds: Predictions, targets: Targets, pairs: Assignment) -> Tensor:
        return pairs.share * (1.0 if self.class_weights is None else self.class_weights[0])


def rules(term: object, **options: object) -> Criterion:
    return Criterion(
        rules={"main": Rule(assigner=TaskAligned(), terms={"part": Weighted(term=term)})}, batch_scale=False, **options
    )


@pytest.mark.parametrize("part", TERMS, ids=lambda part: part.__name__)
def test_every_built_in_term_tells(part):
    term = build(part)

    assert part.scope in ("pair", "candidate", "image", "own")
    assert part.divides_by in ("assignment", "own")
    assert divides_by(term) == part.divides_by
    assert takes_class_weights(term) == (term.kind in ABOUT_CLASSES)
    assert getattr(term, "remembers", None) is None


@pytest.mark.parametrize("part", TERMS, ids=lambda part: part.__name__)
def test_class_weights_go_to_terms_about_classes_and_to_no_other(part):
    term = build(part)

    got = with_class_weights(term, (1.0, 2.0, 3.0), "both")

    if term.kind not in ABOUT_CLASSES:
        assert got is term
        return
    assert (got.class_weights, got.weight_mode) == ((1.0, 2.0, 3.0), "both")
    assert dataclasses.replace(got, class_weights=None, weight_mode=term.weight_mode) == term
    assert with_class_weights(got, (9.0, 9.0, 9.0), "positive") is got  # it names its own


def test_a_callable_that_says_nothing_has_the_defaults():
    assert divides_by(plain) == "assignment"
    assert not takes_class_weights(plain)
    assert with_class_weights(plain, (1.0,), "both") is plain
    assert not takes_class_weights(Fielded)  # a class is not a term


def test_a_strangers_shares_are_read_as_divided_by_the_assignment():
    preds, targets = random_predictions(generator(0), 2), random_targets(generator(0), (3, 2))
    loss = rules(plain)(Outputs(preds), targets)
    pairs, item = loss.assignments["main"], loss.items[0]

    shares = shares_of(item, plain, preds, targets, pairs)

    assert shares.scope == "pair"
    assert shares.divisor == float(pairs.normalizer) != 1.0
    assert float(shares.total) == pytest.approx(float(item.contributions.sum()), rel=1e-12)


def test_a_term_with_a_divisor_of_its_own_is_read_so():
    class Own:
        scope, divides_by = "pair", "own"

        def __call__(self, preds: Predictions, targets: Targets, pairs: Assignment) -> Tensor:
            return pairs.weight

    preds, targets = random_predictions(generator(0), 1), random_targets(generator(0), (2,))
    pairs = TaskAligned()(preds, targets)
    term = Own()

    assert shares_of(LossItem("main/own", pairs.weight, 1.0), term, preds, targets, pairs).divisor == 1.0


def test_a_strangers_dataclass_with_both_fields_takes_class_weights():
    criterion = rules(Fielded(), class_weights=GivenClassWeights(values=(5.0, 1.0, 1.0), mode="both"))

    resolved = criterion.with_class_counts((1, 1, 1))

    term = resolved.rules["main"].terms["part"].term
    assert term == Fielded(class_weights=(5.0, 1.0, 1.0), weight_mode="both")
    preds, targets = random_predictions(generator(0), 1), random_targets(generator(0), (2,))
    values = [float(each(Outputs(preds), targets).total) for each in (rules(Fielded()), resolved)]
    assert values[1] == pytest.approx(5 * values[0], rel=1e-12)
    assert values[0] > 0


def test_a_strangers_method_is_called():
    class Recording:
        def __init__(self, given: object = None) -> None:
            self.given = given

        def with_class_weights(self, vector: tuple[float, ...], mode: str) -> "Recording":
            return Recording((vector, mode))

        def __call__(self, preds: Predictions, targets: Targets, pairs: Assignment) -> Tensor:
            return pairs.share

    resolved = rules(Recording(), class_weights=InverseFrequency()).with_class_counts((1, 1, 1))

    assert resolved.rules["main"].terms["part"].term.given == ((1.0, 1.0, 1.0), "positive")


class Falling:
    """A level balance that halves every weight."""

    def start_for(self, levels: list[Grid]) -> list[float]:
        return [1.0 for grid in levels for _ in grid.level_strides]

    def moved(self, weights: Tensor, losses: Tensor, levels: list[Grid]) -> Tensor:
        assert len(losses) == len(weights)
        return weights / 2

    def moves(self, training: bool) -> bool:
        return training


class Remembering:
    scope, divides_by, remembers = "candidate", "own", Falling()

    def __call__(self, preds: Predictions, targets: Targets, pairs: Assignment) -> Tensor:
        return preds.logits.sum(dim=-1) * 0 + 1 / preds.logits.shape[1]


def test_a_stranger_may_be_remembered():
    preds, targets = random_predictions(generator(0), 2), random_targets(generator(0), (3, 2))
    criterion = rules(Remembering())
    assert isinstance(Falling(), LevelBalance)

    first, second = (criterion(Outputs(preds), targets).total.item() for _ in range(2))

    assert (first, second) == (pytest.approx(2.0), pytest.approx(1.0))
    assert criterion.state_dict() == {"main/part": [0.25, 0.25, 0.25]}
    with torch.no_grad():
        criterion(Outputs(dataclasses.replace(preds, logits=preds.logits.detach())), targets)
    assert criterion.state_dict() == {"main/part": [0.25, 0.25, 0.25]}


def test_objectness_remembers_a_balance_that_adapts():
    auto = AutoBalance(reference_stride=8)

    assert Objectness(balance=auto).remembers is auto
    assert Objectness(balance=(1.0, 2.0, 3.0)).remembers is None
    assert [auto.moves(training) for training in (True, False)] == [True, False]
    assert AutoBalance(in_eval=True).moves(False)


def test_the_fields_of_the_score_forms_keep_their_order():
    """A recipe file lists them in this order."""
    assert [field.name for field in dataclasses.fields(SoftScores)] == [
        "kind",
        "class_weights",
        "weight_mode",
        "empty_norm",
    ]
    assert [field.name for field in dataclasses.fields(HardScores)][-2:] == ["class_weights", "weight_mode"]
    assert "class_weights" not in {field.name for field in dataclasses.fields(BoxOverlap)}
