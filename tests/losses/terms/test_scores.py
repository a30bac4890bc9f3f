# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.losses.scenes import generator, make_targets, random_predictions

from boxwright.errors import ConfigError, ShapeError
from boxwright.losses.factors import with_factors
from boxwright.losses.terms import FocalScores, QualityFocalScores, SoftScores, VarifocalScores
from boxwright.structures import Assignment, Predictions, Targets

TARGETS = make_targets([(0, 0, 30, 30), (0, 0, 60, 60)], [(0, 0, 30, 30)], labels=[[2, 0], [1]])


def pairs() -> Assignment:
    return Assignment(
        image=torch.tensor([0, 0, 1, 1]),
        anchor=torch.tensor([5, 9, 0, 0]),
        target=torch.tensor([0, 1, 0, 1]),
        valid=torch.tensor([True, True, True, False]),
        weight=torch.tensor([0.5, 1.0, 0.25, 0.0], dtype=torch.float64),
        normalizer=torch.tensor(4.0, dtype=torch.float64),
    )


def test_equals_a_loop_over_every_entry():
    preds, wanted = random_predictions(generator(0), 2), {(0, 5, 2): 0.5, (0, 9, 0): 1.0, (1, 0, 1): 0.25}

    got = SoftScores()(preds, TARGETS, pairs())

    for image, rows in enumerate(preds.logits.tolist()):
        for anchor, row in enumerate(rows):
            costs = [
                wanted.get((image, anchor, c), 0.0) * math.log1p(math.exp(-z))
                + (1 - wanted.get((image, anchor, c), 0.0)) * math.log1p(math.exp(z))
                for c, z in enumerate(row)
            ]
            assert got[image, anchor].item() == pytest.approx(sum(costs) / 4.0, rel=1e-11)


def test_no_pairs_make_every_entry_background():
    preds = random_predictions(generator(2), 1)
    index = torch.zeros(0, dtype=torch.int64)
    none = Assignment(index, index, index, index.bool(), index.double(), torch.tensor(1.0, dtype=torch.float64))

    got = SoftScores()(preds, make_targets([]), none)
    got.sum().backward()

    expected = torch.nn.functional.softplus(preds.logits.detach(), threshold=100).sum(dim=-1)
    assert torch.allclose(got, expected, rtol=1e-12)
    assert torch.allclose(preds.logits.grad, preds.logits.detach().sigmoid(), rtol=1e-12)


# One entry's cost as a plain number: (logit, target, matched, weight of the class).
def bce_of(z, y, w):
    return w * y * math.log1p(math.exp(-z)) + (1 - y) * math.log1p(math.exp(z))


def focal_of(z, y, w):
    p = 1 / (1 + math.exp(-z))
    balance = 0.25 * y + 0.75 * (1 - y)
    return bce_of(z, y, w) * balance * (1 - y * p - (1 - y) * (1 - p)) ** 2


def quality_of(z, y, w):
    return bce_of(z, y, w) * abs(y - 1 / (1 + math.exp(-z))) ** 2


WEIGHTS = (0.5, 1.0, 4.0)
MATCHED = {(0, 5, 2): 0.5, (0, 9, 0): 1.0, (1, 0, 1): 0.25}
FORMS = {
    "bce": (SoftScores, {}, lambda z, y, matched, w: bce_of(z, y, w)),
    "focal": (FocalScores, {}, lambda z, y, matched, w: focal_of(z, y, w)),
    "focal hard": (FocalScores, {"target": "hard"}, lambda z, y, matched, w: focal_of(z, float(matched), w)),
    "focal unbalanced": (
        FocalScores,
        {"alpha": 0.0, "gamma": 1.5},
        lambda z, y, matched, w: bce_of(z, y, w) * abs(y + (1 - 2 * y) / (1 + math.exp(-z))) ** 1.5,
    ),
    "quality": (QualityFocalScores, {}, lambda z, y, matched, w: quality_of(z, y, w)),
    "quality balanced": (
        QualityFocalScores,
        {"alpha": 0.25},
        lambda z, y, matched, w: quality_of(z, y, w) * (0.25 * y + 0.75 * (1 - y)),
    ),
    "varifocal": (
        VarifocalScores,
        {},
        lambda z, y, matched, w: bce_of(z, y, w) * (y if matched else 0.75 / (1 + math.exp(-z)) ** 2),
    ),
}
TERMS = [form(**options) for form, options, _ in FORMS.values()]
CASES = [
    *(pytest.param(term, False, id=name) for name, term in zip(FORMS, TERMS, strict=True)),
    pytest.param(SoftScores(), True, id="exclusive"),
]


@pytest.mark.parametrize("mode", [None, "positive", "both"])
@pytest.mark.parametrize("name", FORMS)
def test_every_form_equals_a_loop_over_every_entry(name, mode):
    form, options, cost = FORMS[name]
    preds = random_predictions(generator(3), 2)
    chosen = {} if mode is None else {"class_weights": WEIGHTS, "weight_mode": mode}

    got = form(**options, **chosen)(preds, TARGETS, pairs())

    for image, rows in enumerate(preds.logits.tolist()):
        for anchor, row in enumerate(rows):
            total = 0.0
            for c, z in enumerate(row):
                key, (positive, whole) = (image, anchor, c), (1.0, 1.0)
                if mode is not None:
                    positive, whole = (WEIGHTS[c], 1.0) if mode == "positive" else (1.0, WEIGHTS[c])
                total += whole * cost(z, MATCHED.get(key, 0.0), key in MATCHED, positive)
            assert got[image, anchor].item() == pytest.approx(total / 4.0, rel=1e-10)


def test_a_detached_varifocal_weight_has_the_slope_of_a_constant():
    preds = random_predictions(generator(1), 2)
    z = preds.logits.detach()

    VarifocalScores(detach_weight=True)(preds, TARGETS, pairs()).sum().backward()

    expected = 0.75 * z.sigmoid() ** 3 / 4
    for (image, anchor, c), y in MATCHED.items():
        expected[image, anchor, c] = y * (z[image, anchor, c].sigmoid() - y) / 4
    assert torch.allclose(preds.logits.grad, expected, rtol=1e-11, atol=1e-15)
    values = [VarifocalScores(detach_weight=detach)(preds, TARGETS, pairs()).tolist() for detach in (False, True)]
    assert values[0] == values[1]


@pytest.mark.parametrize("mode", [None, "positive", "both"])
def test_exclusive_scores_equal_a_softmax_with_a_background_logit(mode):
    preds = dataclasses.replace(random_predictions(generator(4), 2), exclusive=True)
    chosen = {} if mode is None else {"class_weights": WEIGHTS, "weight_mode": mode}

    got = SoftScores(**chosen)(preds, TARGETS, pairs())

    wanted = {(image, anchor): (c, y) for (image, anchor, c), y in MATCHED.items()}
    for image, rows in enumerate(preds.logits.tolist()):
        for anchor, row in enumerate(rows):
            total = math.log(1 + sum(map(math.exp, row)))
            c, y = wanted.get((image, anchor), (0, 0.0))
            w = WEIGHTS[c] if mode and y else 1.0
            cost = total - y * row[c]
            if mode == "positive":
                cost = w * y * (total - row[c]) + (1 - y) * total
            elif mode == "both":
                cost *= w
            assert got[image, anchor].item() == pytest.approx(cost / 4.0, rel=1e-11)


@pytest.mark.parametrize("mode", ["positive", "both"])
def test_exclusive_scores_of_one_class_are_the_binary_ones(mode):
    preds = random_predictions(generator(5), 2)
    one = dataclasses.replace(preds, logits=preds.logits[..., :1])
    targets = dataclasses.replace(TARGETS, labels=torch.zeros_like(TARGETS.labels))
    term = SoftScores(class_weights=(2.5,), weight_mode="positive") if mode == "positive" else SoftScores()

    binary = term(one, targets, pairs())
    exclusive = term(dataclasses.replace(one, exclusive=True), targets, pairs())

    assert torch.allclose(binary, exclusive, rtol=1e-12, atol=0)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0.0, 10.0), min_size=3, max_size=3), st.floats(0.1, 5.0), st.integers(0, 3))
def test_weighing_both_halves_is_linear_in_the_weights(vector, factor, seed):
    preds = random_predictions(generator(seed), 2, (32, 32), (16, 32))
    pair = dataclasses.replace(pairs(), anchor=torch.tensor([0, 1, 2, 0]))

    def cost(weights: list[float]) -> torch.Tensor:
        return SoftScores(class_weights=tuple(weights), weight_mode="both")(preds, TARGETS, pair)

    scaled = cost([factor * value for value in vector])
    assert torch.allclose(scaled, factor * cost(vector), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("term", "exclusive"), CASES)
def test_an_unused_slot_may_point_at_anything(term, exclusive):
    preds = dataclasses.replace(random_predictions(generator(8), 2), exclusive=exclusive)
    unused = dataclasses.replace(pairs(), anchor=torch.tensor([5, 9, 0, 40]))

    here, there = (term(preds, TARGETS, choice) for choice in (pairs(), unused))

    assert torch.equal(here, there)


@pytest.mark.parametrize("term", TERMS, ids=FORMS)
def test_no_pairs_are_background_only(term):
    preds = random_predictions(generator(2), 1)
    index = torch.zeros(0, dtype=torch.int64)
    none = Assignment(index, index, index, index.bool(), index.double(), torch.tensor(1.0, dtype=torch.float64))
    slots = Assignment(
        *(torch.zeros(4, dtype=torch.int64) for _ in range(3)),
        valid=torch.zeros(4, dtype=torch.bool),
        weight=torch.zeros(4, dtype=torch.float64),
        normalizer=torch.tensor(1.0, dtype=torch.float64),
    )

    got = term(preds, make_targets([]), none)
    got.sum().backward()

    assert preds.logits.grad.gt(0).all()
    assert torch.equal(term(preds, make_targets([], slots=1), slots), got)


def test_an_empty_batch_may_be_divided_by_its_candidates():
    preds = random_predictions(generator(2), 2)
    index = torch.zeros(0, dtype=torch.int64)
    none = Assignment(index, index, index, index.bool(), index.double(), torch.tensor(1.0, dtype=torch.float64))
    empty = make_targets([], [])
    candidates = preds.logits.shape[1]

    plain, divided = (SoftScores(empty_norm=norm)(preds, empty, none) for norm in ("sum", "anchors"))

    assert torch.allclose(divided, plain / (2 * candidates), rtol=1e-12)
    some = [SoftScores(empty_norm=norm)(preds, TARGETS, pairs()) for norm in ("sum", "anchors")]
    assert torch.equal(*some)


@pytest.mark.parametrize(("term", "exclusive"), CASES)
def test_a_candidate_in_an_ignore_region_may_hold_anything(term, exclusive):
    preds = dataclasses.replace(random_predictions(generator(9), 2), exclusive=exclusive)
    # The first level has 12 columns of 8 px: cells 30 to 41 are the last six of its third row and half of the fourth.
    regions = torch.tensor([[[0, 0, 0, 0], [0, 0, 0, 0]], [[48, 16, 96, 24], [0, 24, 48, 32]]], dtype=torch.float64)
    targets = dataclasses.replace(TARGETS, ignore=regions)

    def total(logits: torch.Tensor) -> torch.Tensor:
        there = dataclasses.replace(preds, logits=logits)
        return with_factors(term(there, targets, pairs()), term, there, targets, pairs())

    wild = preds.logits.detach().clone()
    wild[1, 30:42] = torch.tensor([torch.nan, torch.inf, -torch.inf], dtype=torch.float64)
    wild.requires_grad_()
    got, calm = total(wild), total(preds.logits)
    got.sum().backward()
    calm.sum().backward()

    assert got[1, 30:42].eq(0).all()
    assert torch.allclose(got, calm, rtol=1e-12)
    assert wild.grad[1, 30:42].eq(0).all()
    assert wild.grad[1, 29].ne(0).all()
    assert torch.allclose(wild.grad, preds.logits.grad, rtol=1e-12, atol=1e-16)


def test_by_channel_logits_get_the_same_gradient_in_their_own_order():
    preds = random_predictions(generator(10), 2)
    maps = preds.logits.detach().transpose(1, 2).contiguous().requires_grad_()
    for term in TERMS:
        preds.logits.grad = maps.grad = None
        got = term(dataclasses.replace(preds, logits=maps.transpose(1, 2)), TARGETS, pairs())
        wanted = term(preds, TARGETS, pairs())
        got.sum().backward()
        wanted.sum().backward()

        assert torch.allclose(got, wanted, rtol=1e-12)
        assert torch.allclose(maps.grad.transpose(1, 2), preds.logits.grad, rtol=1e-12, atol=1e-16)


def _permuted(preds: Predictions, targets: Targets, pair: Assignment) -> tuple[Predictions, Targets, Assignment]:
    """Images in reverse order, slots in reverse order, two more slots."""
    images, width = preds.logits.shape[0], targets.labels.shape[1]
    labels = torch.nn.functional.pad(targets.labels.flip(0, 1), (0, 2))
    boxes = torch.nn.functional.pad(targets.boxes.flip(0, 1), (0, 0, 0, 2))
    valid = torch.nn.functional.pad(targets.valid.flip(0, 1), (0, 2))
    moved = dataclasses.replace(pair, image=images - 1 - pair.image, target=width - 1 - pair.target)
    return (
        dataclasses.replace(preds, logits=preds.logits.flip(0), box_raw=preds.box_raw.flip(0)),
        Targets(labels, boxes, valid),
        moved,
    )


@pytest.mark.parametrize("term", TERMS, ids=FORMS)
def test_order_of_images_and_slots_and_padding_change_nothing(term):
    preds = random_predictions(generator(11), 2)

    plain, moved = term(preds, TARGETS, pairs()), term(*_permuted(preds, TARGETS, pairs()))

    assert torch.allclose(moved.flip(0), plain, rtol=1e-12)


@pytest.mark.parametrize("term", TERMS[1:], ids=list(FORMS)[1:])
def test_forms_without_a_softmax_refuse_exclusive_classes(term):
    preds = dataclasses.replace(random_predictions(generator(0), 2), exclusive=True)

    with pytest.raises(ShapeError, match="use SoftScores"):
        term(preds, TARGETS, pairs())


def test_mistakes_name_the_field():
    with pytest.raises(ConfigError, match=r"SoftScores.class_weights: expected numbers of at least 0, got -1"):
        SoftScores(class_weights=(1.0, -1.0))
