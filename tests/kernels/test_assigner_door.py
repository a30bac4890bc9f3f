# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The door to faster forms of assigners: who gets one, and who does not."""

import dataclasses
from typing import Literal, get_args

import pytest
from tests.losses.scenes import generator, random_predictions, random_targets

from boxwright import kernels
from boxwright.config import component
from boxwright.kernels.assign import task_aligned as module
from boxwright.losses.assign import Assigner, Known, TaskAligned
from boxwright.losses.criterion import Criterion, Rule
from boxwright.structures import Outputs


@pytest.mark.parametrize("assigner", get_args(get_args(Assigner)[0]))
def test_every_assigner_but_the_trivial_one_has_a_faster_form(assigner):
    assert (kernels.kernel_of(assigner()) is None) == (assigner is Known)


def test_the_faster_form_is_the_function_of_the_kind_and_has_steps_beside():
    assigner = TaskAligned(topk=3)

    form, prepare = kernels.fast(assigner), kernels.fast(assigner, "prepare")

    assert (form.func, form.args) == (module.task_aligned, (assigner,))
    assert (prepare.func, prepare.args) == (module.prepare, (assigner,))
    assert kernels.fast(assigner, "assign_many") is None


def test_inside_definitions_everything_is_its_definition():
    assigner = TaskAligned()

    with kernels.definitions(), kernels.definitions():
        assert kernels.fast(assigner) is assigner
        assert kernels.fast(assigner, "prepare") is None

    assert kernels.fast(assigner).func is module.task_aligned


def test_definitions_end_with_an_error_too():
    with pytest.raises(ZeroDivisionError), kernels.definitions():
        raise ZeroDivisionError

    assert kernels.fast(TaskAligned()).func is module.task_aligned


@component
class Stranger(TaskAligned):
    """Another class may mean something else, even under the same kind."""

    kind: Literal["task_aligned"] = "task_aligned"

    def prepare(self, targets, grid):
        return targets


def test_classes_of_others_stand_for_themselves():
    assigner = Stranger()

    assert kernels.fast(assigner) is assigner
    assert kernels.fast(assigner, "prepare") == assigner.prepare
    assert kernels.fast(max) is max


def test_a_criterion_assigns_by_the_faster_form_or_by_the_definition(monkeypatch):
    calls, by_definition = [], TaskAligned.__call__
    monkeypatch.setattr(TaskAligned, "__call__", lambda *inputs: calls.append(1) or by_definition(*inputs))
    preds, targets = random_predictions(generator(0), 2), random_targets(generator(0), (4, 0))
    criterion = Criterion(rules={"main": Rule(assigner=TaskAligned(), terms={})})

    fast = criterion._assign([preds], criterion.prepare(targets, preds.grid))
    assert not calls
    with kernels.definitions():
        assert criterion.prepare(targets, preds.grid) is targets
        slow = criterion._assign([preds], targets)

    assert calls
    assert dataclasses.asdict(fast[0]).keys() == dataclasses.asdict(slow[0]).keys()
    assert fast[0].anchor.tolist() == slow[0].anchor.tolist()
    assert Outputs(preds).final is preds
