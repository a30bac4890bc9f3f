# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import dataclasses
import math

import pytest
import torch
from tests.losses.anchor_scenes import joined, pyramid, random_maps
from tests.losses.scenes import CLASSES, generator, random_targets
from tests.reference import anchor_based as reference

from boxwright.errors import ConfigError
from boxwright.losses.assign import AnchorRatio
from boxwright.losses.terms import ExclusiveScores, HardScores
from boxwright.structures import Assignment, Predictions

GRID = pyramid()
TARGETS = random_targets(generator(7), (5, 3))
FORMS = [HardScores(), ExclusiveScores(), HardScores(smoothing=0.2), ExclusiveScores(smoothing=0.2)]


def scene(term: HardScores | ExclusiveScores, classes: int = CLASSES) -> tuple[Predictions, Assignment]:
    exclusive = isinstance(term, ExclusiveScores)
    maps = random_maps(generator(0), 2, GRID, classes)
    preds = joined(maps, GRID, table=False, exclusive=exclusive).final
    targets = TARGETS if classes > 1 else dataclasses.replace(TARGETS, labels=TARGETS.labels * 0)
    return preds, AnchorRatio()(preds, targets)


def hand(term: HardScores, z: float, y: float, weight: float) -> float:
    p = 1 / (1 + math.exp(-z))
    cost = -weight * y * math.log(p) - (1 - y) * math.log(1 - p)
    if term.modulation == "none":
        return cost
    balance = y * term.alpha + (1 - y) * (1 - term.alpha)
    q = y * p + (1 - y) * (1 - p)
    return cost * balance * ((1 - q) if term.modulation == "focal" else abs(y - p)) ** term.gamma


@pytest.mark.parametrize("term", FORMS)
def test_equals_a_loop_over_every_pair(term):
    preds, pairs = scene(term)

    got = term(preds, TARGETS, pairs)

    for p, (image, anchor, slot) in enumerate(
        zip(pairs.image.tolist(), pairs.anchor.tolist(), pairs.target.tolist(), strict=True)
    ):
        logits, label = preds.logits[image, anchor].tolist(), TARGETS.labels[image, slot].item()
        cost = reference.class_cost(logits, label, isinstance(term, ExclusiveScores), term.smoothing)
        assert got[p].item() == pytest.approx(cost * pairs.weight[p].item(), rel=1e-10)


@pytest.mark.parametrize("mode", ["positive", "both"])
@pytest.mark.parametrize("modulation", ["none", "focal", "quality_focal"])
def test_weights_and_modulation_by_hand(modulation, mode):
    weights = (0.5, 2.0, 3.0)
    term = HardScores(smoothing=0.1, pos_weight=1.5, modulation=modulation, class_weights=weights, weight_mode=mode)
    preds, pairs = scene(term)

    got = term(preds, TARGETS, pairs)

    for p, (image, anchor, slot) in enumerate(
        zip(pairs.image.tolist(), pairs.anchor.tolist(), pairs.target.tolist(), strict=True)
    ):
        label, cost = TARGETS.labels[image, slot].item(), 0.0
        for c, z in enumerate(preds.logits[image, anchor].tolist()):
            positive, all_of_it = (1.5 * weights[c], 1.0) if mode == "positive" else (1.5, weights[c])
            cost += all_of_it * hand(term, z, 0.95 if c == label else 0.05, positive) / CLASSES
        assert got[p].item() == pytest.approx(cost * pairs.weight[p].item(), rel=1e-9)


def test_class_weights_of_exclusive_classes():
    term = ExclusiveScores(class_weights=(0.5, 2.0, 3.0))
    preds, pairs = scene(term)

    got, plain = term(preds, TARGETS, pairs), ExclusiveScores()(preds, TARGETS, pairs)

    weight = torch.tensor([0.5, 2.0, 3.0], dtype=torch.float64)[TARGETS.labels[pairs.image, pairs.target]]
    assert torch.allclose(got, plain * weight, rtol=1e-12)


def test_smoothing_keeps_the_gradient_of_a_softmax():
    # The gradient is the probability less the smoothed target, a distribution of its own.
    term = ExclusiveScores(smoothing=0.3)
    preds, pairs = scene(term)
    logits = preds.logits.detach().clone().requires_grad_()

    term(dataclasses.replace(preds, logits=logits), TARGETS, pairs).sum().backward()

    expected = torch.zeros_like(logits)
    columns = (pairs.image, pairs.anchor, pairs.target, pairs.weight)
    for image, anchor, slot, weight in zip(*columns, strict=True):
        wanted = torch.full((CLASSES,), 0.1, dtype=torch.float64)
        wanted[TARGETS.labels[image, slot]] += 0.7
        expected[image, anchor] += weight * (logits[image, anchor].detach().softmax(0) - wanted)
    assert torch.allclose(logits.grad, expected, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("term", FORMS)
def test_one_class_is_silent_but_in_the_graph(term):
    preds, pairs = scene(term, classes=1)
    logits = preds.logits.detach().clone().requires_grad_()

    got = term(dataclasses.replace(preds, logits=logits), TARGETS, pairs)
    got.sum().backward()

    assert got.shape == pairs.weight.shape
    assert got.eq(0).all()
    assert logits.grad.eq(0).all()


@pytest.mark.parametrize("term", FORMS)
@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan, 1e4])
def test_an_extreme_value_under_an_unused_slot_reaches_nothing(term, value):
    preds, pairs = scene(term)
    held = (pairs.image == pairs.image[0]) & (pairs.anchor == pairs.anchor[0])
    pairs = dataclasses.replace(pairs, valid=pairs.valid & ~held, weight=pairs.weight * ~held)
    logits = preds.logits.detach().clone()
    logits[pairs.image[0], pairs.anchor[0]] = value
    logits.requires_grad_()

    got = term(dataclasses.replace(preds, logits=logits), TARGETS, pairs)
    got.sum().backward()

    assert got[held].eq(0).all()
    assert got.isfinite().all()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize(("term", "exclusive"), [(HardScores(), True), (ExclusiveScores(), False)])
def test_the_flag_and_the_term_must_agree(term, exclusive):
    preds, pairs = scene(term)

    with pytest.raises(ConfigError, match=f"got predictions with exclusive={exclusive}; use"):
        term(dataclasses.replace(preds, exclusive=exclusive), TARGETS, pairs)


@pytest.mark.parametrize(
    ("kind", "setting"),
    [(HardScores, {"smoothing": 1.1}), (HardScores, {"gamma": 0.5}), (ExclusiveScores, {"smoothing": -0.1})],
)
def test_settings_out_of_range_are_refused(kind, setting):
    with pytest.raises(ConfigError, match=rf"{kind.__name__}\.{next(iter(setting))}: expected"):
        kind(**setting)
