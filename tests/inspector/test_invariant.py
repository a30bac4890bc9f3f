# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""What objects, background and whole images pay sums to the trainer's loss: item by item, for every criterion.

The scenes are those of every golden case: batches without objects, dual heads, denoising queries, all levels.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.golden.adapters import ADAPTERS
from tests.golden.inputs import BUILDERS

from boxwright.inspector.probe import inspect
from boxwright.losses.criterion import Criterion
from boxwright.losses.image_level import ImageCriterion
from boxwright.structures import ImageTargets

FOLDER = Path(__file__).parents[1] / "golden"


def cases():
    for name in ADAPTERS:
        for case in json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))["cases"]:
            yield pytest.param(name, case, id=f"{name}-{case['name']}")


@pytest.fixture
def calls(monkeypatch):
    """Every call of a criterion: itself, outputs, targets, progress, its state before, and what it returned."""
    seen = []
    for kind in (Criterion, ImageCriterion):
        original = kind.__call__

        def record(self, outputs, targets, progress=0.0, original=original):
            state = self.state_dict()
            found = original(self, outputs, targets, progress)
            seen.append((self, outputs, targets, progress, state, found))
            return found

        monkeypatch.setattr(kind, "__call__", record)
    return seen


def captured(name, case, calls):
    ADAPTERS[name](case, BUILDERS[case["builder"]](case["params"]), torch.float64)
    criterion, outputs, targets, progress, state, found = calls[0]
    fresh = replace(criterion)
    fresh.load_state_dict(state)
    return fresh, outputs, targets, progress, found


def check(found, inspection):
    total = found.total.item()
    expected = found.components
    scale = float(found.scale)
    terms = list(inspection.terms.rows())
    assert [row["term"] for row in terms] == list(expected)
    for row in terms:
        value = expected[row["term"]].item() * scale
        paid = row["objects"] + row["background"] + row["images"]
        assert paid == pytest.approx(value, rel=1e-9, abs=1e-12), row["term"]
        assert row["loss"] == pytest.approx(value, rel=1e-9, abs=1e-12), row["term"]
    assert inspection.total == pytest.approx(total, rel=1e-12)
    assert inspection.images["loss"].sum() == pytest.approx(total, rel=1e-9, abs=1e-12)
    if len(inspection.objects.columns):
        objects = inspection.objects["loss"].sum() if len(inspection.objects) else 0.0
        rest = inspection.terms["background"].sum() + inspection.terms["images"].sum()
        assert objects + rest == pytest.approx(total, rel=1e-9, abs=1e-12)
        pairs = inspection.pairs["loss"].sum() if len(inspection.pairs) else 0.0
        assert pairs == pytest.approx(objects, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(("name", "case"), list(cases()))
def test_parts_sum_to_the_loss(name, case, calls):
    criterion, outputs, targets, progress, found = captured(name, case, calls)

    inspection = inspect(outputs, targets, criterion, progress=progress, gradients=False)

    check(found, inspection)


FIRST = {name: next(iter(json.loads((FOLDER / f"{name}.json").read_text())["cases"])) for name in ADAPTERS}


@pytest.mark.parametrize("name", [name for name in ADAPTERS if name != "classify"])
def test_parts_sum_with_weights_and_ignore_regions(name, calls):
    criterion, outputs, targets, progress, _ = captured(name, FIRST[name], calls)
    height, width = outputs.final.image_size
    batch, slots = targets.labels.shape
    weights = torch.linspace(0.0, 2.0, batch * slots, dtype=torch.float64).view(batch, slots)
    region = torch.tensor([[0.0, 0.0, width * 0.6, height * 0.5]], dtype=torch.float64).expand(batch, 1, 4)
    targets = replace(targets, weights=weights, ignore=region)
    expected = replace(criterion)(outputs, targets, progress)

    inspection = inspect(outputs, targets, criterion, progress=progress, gradients=False)

    check(expected, inspection)


@pytest.mark.parametrize("name", list(ADAPTERS))
def test_gradients_are_those_of_training(name, calls):
    criterion, outputs, targets, progress, _ = captured(name, FIRST[name], calls)

    inspection = inspect(outputs, targets, criterion, progress=progress)

    assert np.isfinite(inspection.terms["gradient"]).all()
    if isinstance(targets, ImageTargets):
        assert (inspection.images["gradient"] > 0).any()
        return
    assert (inspection.pairs["gradient"] >= 0).all()
    assert (inspection.pairs["gradient"] > 0).any()
    # An object's gradient is at least that of its strongest candidate.
    for row in inspection.objects.rows():
        mine = (inspection.pairs["image"] == row["image"]) & (inspection.pairs["object"] == row["object"])
        strongest = inspection.pairs["gradient"][mine].max(initial=0.0)
        assert row["gradient"] >= strongest * (1 - 1e-9)


def test_nothing_given_is_changed(calls):
    criterion, outputs, targets, progress, _ = captured("v5", FIRST["v5"], calls)
    before = outputs.final.logits.detach().clone()
    state = criterion.state_dict()

    inspect(outputs, targets, criterion, progress=progress)

    assert torch.equal(outputs.final.logits.detach(), before)
    assert criterion.state_dict() == state


@pytest.mark.parametrize("name", [name for name in ADAPTERS if name != "classify"])
def test_every_positive_of_the_trace_is_a_pair(name, calls):
    criterion, outputs, targets, progress, _ = captured(name, FIRST[name], calls)

    inspection = inspect(outputs, targets, criterion, progress=progress, gradients=False)

    where = ("part", "image", "object", "candidate")
    positives = inspection.candidates.take(inspection.candidates["fate"] == "positive")
    found = set(zip(*(positives[column].tolist() for column in where), strict=True))
    assert found == set(zip(*(inspection.pairs[column].tolist() for column in where), strict=True))


def captured_first(name, calls):
    criterion, outputs, targets, progress, _ = captured(name, FIRST[name], calls)
    return criterion, outputs, targets, progress


@pytest.mark.parametrize("name", [name for name in ADAPTERS if name != "classify"])
def test_shares_come_in_raw_normalised_and_weighted_units(name, calls):
    criterion, outputs, targets, progress = captured_first(name, calls)

    inspection = inspect(outputs, targets, criterion, progress=progress, gradients=False)

    factors = {row["term"]: (row["gain"] * inspection.scale, row["normalizer"]) for row in inspection.terms.rows()}
    sums = dict.fromkeys(factors, 0.0)
    for row in inspection.shares.rows():
        gain, normalizer = factors[row["term"]]
        assert row["loss"] == pytest.approx(row["value"] * gain, rel=1e-12)
        assert row["raw"] in (pytest.approx(row["value"] * normalizer, rel=1e-12), row["value"])
        sums[row["term"]] += row["loss"]
    for row in inspection.terms.rows():
        assert sums[row["term"]] == pytest.approx(row["objects"], rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", [name for name in ADAPTERS if name != "classify"])
def test_raw_is_what_stands_before_the_division_by_the_normalizer(name, calls):
    """Each term is asked again with twice the normalizer: only those that divide by it then give half."""
    criterion, outputs, targets, _ = captured_first(name, calls)
    targets = criterion.prepare(targets, outputs.final.grid)
    for preds in (*outputs.auxiliary, outputs.final):
        rule = criterion.rules[preds.role]
        pairs = rule.assigner(preds, targets)
        doubled = replace(pairs, normalizer=pairs.normalizer * 2)
        for label, weighted in rule.terms.items():
            value, other = (weighted.term(preds, targets, held).detach().sum() for held in (pairs, doubled))
            if value == 0 or not pairs.valid.any():
                continue
            expected = 1.0 if weighted.term.divides_by == "own" else 0.5
            assert float(other / value) == pytest.approx(expected, rel=1e-6), (preds.label, label)


@pytest.mark.parametrize("mode", ["positive", "both"])
@pytest.mark.parametrize("name", [name for name in ADAPTERS if name not in ("classify", "attributes")])
def test_class_weights_are_part_of_who_pays(name, mode, calls):
    criterion, outputs, targets, progress = captured_first(name, calls)
    weights = tuple(float(2 + i % 3) for i in range(outputs.final.logits.shape[2]))

    def heavier(weighted):
        if not hasattr(weighted.term, "class_weights"):
            return weighted
        return replace(weighted, term=replace(weighted.term, class_weights=weights, weight_mode=mode))

    rules = {
        role: replace(rule, terms={key: heavier(weighted) for key, weighted in rule.terms.items()})
        for role, rule in criterion.rules.items()
    }
    weighted = replace(criterion, rules=rules)
    expected = replace(weighted)(outputs, targets, progress)

    inspection = inspect(outputs, targets, weighted, progress=progress, gradients=False)

    check(expected, inspection)
    assert expected.total.item() != pytest.approx(replace(criterion)(outputs, targets, progress).total.item(), rel=1e-6)
