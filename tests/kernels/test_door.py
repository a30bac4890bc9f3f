# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The one place where a definition or its faster form is chosen."""

import dataclasses
import inspect
import pkgutil
from functools import partial
from importlib import import_module

import pytest
from tests.losses.scenes import generator, random_predictions, random_targets

import boxwright.kernels.terms
from boxwright.kernels import by_definition, definitions, fast, kernel_of
from boxwright.losses.assign import TaskAligned
from boxwright.losses.criterion import Criterion, Rule, Weighted
from boxwright.losses.terms import Angle, SoftScores
from boxwright.losses.terms import scores as defined
from boxwright.structures import Outputs, Predictions


def test_a_term_has_the_function_of_its_kind():
    term = SoftScores(class_weights=(1.0, 2.0))

    got = fast(term)

    assert isinstance(got, partial)
    assert (got.func.__module__, got.func.__name__) == ("boxwright.kernels.terms.scores", "soft_scores")
    assert got.args == (term,)


def test_a_definition_without_a_faster_form_is_its_own():
    term = Angle()

    assert fast(term) is term


def test_inside_definitions_everything_is_its_own():
    term = SoftScores()

    with definitions():
        with definitions():
            assert fast(term) is term
        assert by_definition()
        assert fast(term) is term
    assert not by_definition()
    assert fast(term) is not term


def test_an_error_inside_definitions_closes_them():
    with pytest.raises(ZeroDivisionError), definitions():
        raise ZeroDivisionError

    assert not by_definition()


def test_strangers_are_their_own():
    class Stranger(SoftScores):
        """One of another package that changes an entry's cost, of which a kernel would know nothing."""

        kind = "soft_scores"

    def plain(preds, targets, pairs):
        return pairs.weight

    assert fast(plain) is plain
    assert kernel_of(plain) is None
    stranger = Stranger()
    assert fast(stranger) is stranger


def test_every_public_function_of_a_kernel_file_has_its_definition():
    wrong = []
    for info in pkgutil.iter_modules(boxwright.kernels.terms.__path__):
        module = import_module(f"boxwright.kernels.terms.{info.name}")
        home = import_module(f"boxwright.losses.terms.{info.name}")
        kinds = {
            field.default
            for _, part in inspect.getmembers(home, dataclasses.is_dataclass)
            for field in dataclasses.fields(part)
            if field.name == "kind"
        }
        for name, function in inspect.getmembers(module, inspect.isfunction):
            mine = function.__module__ == module.__name__ and not name.startswith("_")
            if mine and name not in kinds and not hasattr(home, name):
                wrong.append(f"{module.__name__}.{name}")
    assert not wrong


@pytest.mark.parametrize("inside", [False, True])
def test_a_criterion_asks_the_door(monkeypatch, inside):
    called = []
    kernel = kernel_of(SoftScores())
    monkeypatch.setattr(
        defined.ScoreForm, "entry_cost", lambda self, z, wanted, matched, positive: called.append(z.shape) or z * wanted
    )
    monkeypatch.setattr(
        "boxwright.kernels._found", {(SoftScores, None): lambda *given: called.append("kernel") or kernel(*given)}
    )
    rules = Criterion(rules={"main": Rule(assigner=TaskAligned(), terms={"cls": Weighted(term=SoftScores())})})
    preds, targets = random_predictions(generator(0), 2), random_targets(generator(0), (2, 1))

    if inside:
        with definitions():
            rules(Outputs(preds), targets)
    else:
        rules(Outputs(preds), targets)

    assert called == ([preds.logits.shape] if inside else ["kernel"])


@pytest.mark.parametrize("inside", [False, True])
def test_only_faster_terms_see_what_is_shared(inside):
    seen = []

    def look(preds, targets, pairs):
        seen.append(type(preds) is Predictions)
        return pairs.weight

    rules = Criterion(rules={"main": Rule(assigner=TaskAligned(), terms={"look": Weighted(term=look)})})
    outputs, targets = Outputs(random_predictions(generator(0), 1)), random_targets(generator(0), (2,))
    if inside:
        with definitions():
            rules(outputs, targets)
    else:
        rules(outputs, targets)

    assert seen == [inside]
