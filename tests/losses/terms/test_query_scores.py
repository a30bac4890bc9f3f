# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import dataclasses
import math

import pytest
import torch
from tests.losses.query_scenes import query_predictions
from tests.losses.scenes import CLASSES, SIZE, generator, make_targets
from tests.losses.terms.test_query_box import pairs
from tests.reference import set_prediction as reference

from boxwright.errors import ConfigError, ShapeError
from boxwright.losses.functional import varifocal
from boxwright.losses.terms import FocalScores, QueryScores, QueryVarifocalScores
from boxwright.ops.boxes import xyxy_to_cxcywh
from boxwright.structures import Assignment, Predictions, Targets

TARGETS = make_targets([(3, 2, 40, 50), (20, 10, 90, 60)], [(0, 0, 30, 30), (1, 1, 1, 2)], labels=[[2, 0], [0, 1]])
TERMS = {
    "varifocal": QueryVarifocalScores(),
    "modern": QueryVarifocalScores(alpha=0.25, gamma=1.5),
    "focal": FocalScores(gamma=1.5, target="hard"),
    "bce": QueryScores(),
}


def count_of(pair: Assignment) -> Assignment:
    """The pairs with a normalizer that is their number."""
    return dataclasses.replace(pair, normalizer=pair.valid.sum().double().clamp(min=1))


def quality_of(preds: Predictions, pair: Assignment) -> dict[tuple[int, int], tuple[int, float]]:
    """Label and IoU of each matched (image, query)."""
    height, width = SIZE
    wanted = xyxy_to_cxcywh(TARGETS.boxes / torch.tensor([width, height, width, height])).tolist()
    return {
        (i, q): (TARGETS.labels[i, t].item(), reference.centre_overlaps(preds.box_raw[i, q].tolist(), wanted[i][t])[0])
        for i, q, t, ok in zip(*(x.tolist() for x in (pair.image, pair.anchor, pair.target, pair.valid)), strict=True)
        if ok
    }


def nothing() -> Assignment:
    index = torch.zeros(0, dtype=torch.int64)
    return Assignment(index, index, index, index.bool(), index.double(), torch.tensor(1.0, dtype=torch.float64))


@pytest.mark.parametrize("matched", [(True, True, True, False), (False,) * 4])
@pytest.mark.parametrize("name", TERMS)
def test_equals_the_reference(name, matched):
    preds, pair = query_predictions(generator(0), 2, 5), count_of(pairs(matched))
    found = quality_of(preds, pair)
    constants = {"alpha": 0.25, "gamma": 1.5} if name == "modern" else {}
    form = "varifocal" if name == "modern" else name

    got = TERMS[name](preds, TARGETS, pair)

    assert got.shape == (2, 5)
    for image in (0, 1):
        mine = {query: of for (i, query), of in found.items() if i == image}
        expected = reference.class_cost(preds.logits[image].tolist(), mine, form, sum(matched), **constants)
        assert got[image].sum().item() == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize("detach", [False, True])
def test_gradient_equals_autograd_on_the_dense_form(detach):
    preds, pair = query_predictions(generator(1), 2, 5), count_of(pairs())
    quality = torch.zeros(2, 5, CLASSES, dtype=torch.float64)
    hard = torch.zeros_like(quality)
    for (image, query), (label, value) in quality_of(preds, pair).items():
        quality[image, query, label], hard[image, query, label] = value, 1.0
    dense = preds.logits.detach().clone().requires_grad_()

    QueryVarifocalScores(detach_weight=detach)(preds, TARGETS, pair).sum().backward()
    (varifocal(dense, quality, hard, detach_weight=detach).sum() / 3).backward()

    assert torch.allclose(preds.logits.grad, dense.grad, rtol=1e-10, atol=1e-14)
    assert preds.box_raw.grad is None  # the quality is a constant


@pytest.mark.parametrize("matched", [(True, True, True, False), (False,) * 4])
@pytest.mark.parametrize("name", TERMS)
def test_gradcheck(name, matched):
    preds = query_predictions(generator(2), 2, 5)

    def run(logits: torch.Tensor) -> torch.Tensor:
        return TERMS[name](dataclasses.replace(preds, logits=logits), TARGETS, count_of(pairs(matched)))

    assert torch.autograd.gradcheck(run, preds.logits)


@pytest.mark.parametrize("name", ["varifocal", "modern"])
def test_a_match_on_another_rank_keeps_varifocal(monkeypatch, name):
    preds = query_predictions(generator(3), 2, 5)
    alone = TERMS[name](preds, make_targets([], []), nothing())
    for room in ("losses", "kernels"):
        monkeypatch.setattr(f"boxwright.{room}.terms.query_scores.sum_over_ranks", lambda count: count + 1)

    got = TERMS[name](preds, make_targets([], []), nothing())

    p = preds.logits.sigmoid()
    softplus = torch.nn.functional.softplus(preds.logits, threshold=100)
    term = TERMS[name]
    assert torch.allclose(got, (term.alpha * p**term.gamma * softplus).sum(dim=-1), rtol=1e-12)
    assert torch.allclose(alone, (0.75 * p**1.5 * softplus).sum(dim=-1), rtol=1e-12)


def test_plain_bce_is_divided_by_queries_only():
    preds = query_predictions(generator(4), 2, 5)

    few = QueryScores()(preds, TARGETS, dataclasses.replace(pairs(), normalizer=torch.tensor(1.0)))
    many = QueryScores()(preds, TARGETS, dataclasses.replace(pairs(), normalizer=torch.tensor(99.0)))

    assert torch.equal(few, many)


@pytest.mark.parametrize("name", ["varifocal", "bce"])
def test_class_weights_of_one_change_nothing_and_others_scale(name):
    preds, term = query_predictions(generator(5), 2, 5), TERMS[name]
    plain = term(preds, TARGETS, count_of(pairs()))

    for mode in ("positive", "both"):
        ones = dataclasses.replace(term, class_weights=(1.0,) * CLASSES, weight_mode=mode)
        assert torch.allclose(ones(preds, TARGETS, count_of(pairs())), plain, rtol=1e-12)
        twice = dataclasses.replace(term, class_weights=(2.0,) * CLASSES, weight_mode=mode)
        got = twice(preds, TARGETS, count_of(pairs()))
        if mode == "both":
            assert torch.allclose(got, 2 * plain, rtol=1e-12)
        else:
            unmatched = torch.ones(2, 5, dtype=torch.bool)
            unmatched[[0, 0, 1], [4, 0, 3]] = False
            assert torch.equal(got[unmatched], plain[unmatched])
            for (image, query), (label, value) in quality_of(preds, count_of(pairs())).items():
                z = preds.logits[image, query, label].item()
                half = value * reference.softplus(-z)  # the positive half of the cross-entropy
                gained = half * value / 3 if name == "varifocal" else half / 5
                assert (got - plain)[image, query].item() == pytest.approx(gained, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("name", TERMS)
def test_a_box_that_is_not_finite_under_an_unused_slot_reaches_nothing(name, value):
    preds = query_predictions(generator(7), 2, 5)
    raw = preds.box_raw.detach().clone()
    raw[1, 2] = value

    got = TERMS[name](dataclasses.replace(preds, box_raw=raw), TARGETS, count_of(pairs()))

    assert torch.equal(got, TERMS[name](preds, TARGETS, count_of(pairs())))


@pytest.mark.parametrize("name", ["varifocal", "bce"])
def test_mistakes_are_named(name):
    preds, term = query_predictions(generator(0), 2, 5), TERMS[name]

    with pytest.raises(ShapeError, match=rf"{type(term).__name__}: expected classes with sigmoid scores"):
        term(dataclasses.replace(preds, exclusive=True), TARGETS, pairs())
    with pytest.raises(ConfigError, match=r"class_weights: expected numbers of at least 0, got -1.0"):
        dataclasses.replace(term, class_weights=(1.0, -1.0, 0.0))


@pytest.mark.parametrize("name", TERMS)
def test_an_image_without_queries_costs_nothing(name):
    preds = query_predictions(generator(0), 2, 0)

    got = TERMS[name](preds, Targets(*(x[:, :0] for x in (TARGETS.labels, TARGETS.boxes, TARGETS.valid))), nothing())
    got.sum().backward()

    assert got.shape == (2, 0)
    assert preds.logits.grad.shape == (2, 0, CLASSES)
