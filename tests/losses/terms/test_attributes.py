# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import dataclasses
import math

import pytest
import torch
from tests.losses.query_scenes import ACTION, LOC, labelled_targets, query_predictions
from tests.losses.scenes import criterion, generator, make_targets, random_predictions
from tests.reference import set_prediction as reference

from boxwright.errors import ConfigError, ShapeError
from boxwright.losses.assign import TaskAligned
from boxwright.losses.criterion import Criterion, Rule, Weighted
from boxwright.losses.terms import Attribute
from boxwright.structures import Assignment, Outputs, Predictions, Targets

TARGETS = dataclasses.replace(
    make_targets([(0, 0, 30, 30), (0, 0, 60, 60)], [(0, 0, 30, 30), (0, 0, 9, 9)]),
    attributes={
        "loc": torch.tensor([[2, -1], [0, 3]]),
        "action": torch.tensor([[[1, 0, -1], [-1, -1, -1]], [[0, 0.25, 1], [1, 1, 1]]], dtype=torch.float64),
    },
)


def pairs(shares: tuple[float, ...] = (1.0, 1.0, 1.0, 0.0)) -> Assignment:
    """Four pairs: known, not labelled, known, and an unused slot whose object is labelled."""
    weight = torch.tensor(shares, dtype=torch.float64)
    return Assignment(
        image=torch.tensor([0, 0, 1, 1]),
        anchor=torch.tensor([4, 0, 3, 2]),
        target=torch.tensor([0, 1, 0, 1]),
        valid=torch.tensor([True, True, True, False]),
        weight=weight,
        normalizer=torch.tensor(17.0, dtype=torch.float64),  # not an attribute's divisor
    )


def rows(preds: Predictions, targets: Targets, name: str, pair: Assignment) -> tuple[list, list, list[float]]:
    """Logits, labels and weights of the valid pairs."""
    ok = pair.valid
    image, anchor, target = pair.image[ok], pair.anchor[ok], pair.target[ok]
    labels = targets.attributes[name][image, target].tolist()
    return preds.attribute_logits[name][image, anchor].tolist(), labels, pair.weight[ok].tolist()


def dense_predictions(seed: int, images: int) -> Predictions:
    source = generator(seed)
    preds = random_predictions(source, images)
    cells = preds.logits.shape[1]
    made = {"loc": LOC, "action": ACTION}
    logits = {n: torch.randn(images, cells, c, generator=source, dtype=torch.float64) for n, c in made.items()}
    return dataclasses.replace(preds, attribute_logits={n: of.requires_grad_() for n, of in logits.items()})


@pytest.mark.parametrize("weights", [None, (0.1, 0.2, 0.3, 0.4)])
def test_one_of_several_is_a_mean_over_known_pairs(weights):
    preds = query_predictions(generator(0), 2, 5, attributes=True)

    got = Attribute(name="loc", weights=weights)(preds, TARGETS, pairs())

    expected = reference.attribute(*rows(preds, TARGETS, "loc", pairs()), dense=False, weights=weights)
    assert got.sum().item() == pytest.approx(expected, rel=1e-12)
    assert got.ne(0).tolist() == [True, False, True, False]


def test_several_labels_are_a_mean_over_known_classes():
    preds = query_predictions(generator(1), 2, 5, attributes=True)

    got = Attribute(name="action")(preds, TARGETS, pairs())

    expected = reference.attribute_several(*rows(preds, TARGETS, "action", pairs()), dense=False)
    assert got.sum().item() == pytest.approx(expected, rel=1e-12)
    assert got.ne(0).tolist() == [True, False, True, False]


def test_weights_of_several_labels_are_shares_of_a_pairs_mean():
    preds = query_predictions(generator(2), 2, 5, attributes=True)

    got = Attribute(name="action", weights=(3.0, 1.0, 0.0))(preds, TARGETS, pairs())

    (z0, z1, _), *_ = preds.attribute_logits["action"][0, 4:5].tolist()  # labels 1, 0, not labelled
    first = (3 * reference.softplus(-z0) + reference.softplus(z1)) / 4
    assert got[0].item() == pytest.approx(first / 2, rel=1e-12)


@pytest.mark.parametrize("shares", [(0.1, 0.4, 0.3, 0.0), (0.9, 0.4, 0.8, 0.0)])
@pytest.mark.parametrize("name", ["loc", "action"])
def test_dense_heads_weigh_by_quality_and_divide_by_at_least_one(name, shares):
    preds = dense_predictions(3, 2)

    got = Attribute(name=name)(preds, TARGETS, pairs(shares))

    form = reference.attribute if name == "loc" else reference.attribute_several
    assert got.sum().item() == pytest.approx(form(*rows(preds, TARGETS, name, pairs(shares)), dense=True), rel=1e-12)


def test_joins_the_yolov8_criterion_and_is_multiplied_by_the_batch():
    source = generator(4)
    preds, targets = dense_predictions(4, 3), labelled_targets(source, (4, 0, 3))
    base = criterion()
    terms = {name: Weighted(term=Attribute(name=name), gain=2.0) for name in ("loc", "action")}
    rule = Rule(assigner=TaskAligned(), terms=base.rules["main"].terms | terms)
    rules = Criterion(rules={"main": rule})

    loss = rules(Outputs(preds), rules.prepare(targets, preds.grid))
    loss.total.backward()

    plain = base(Outputs(preds), targets)
    pair = loss.assignments["main"]
    loc = 2 * reference.attribute(*rows(preds, targets, "loc", pair), dense=True)
    action = 2 * reference.attribute_several(*rows(preds, targets, "action", pair), dense=True)
    assert loss.components["main/loc"].item() == pytest.approx(loc, rel=1e-10)
    assert loss.components["main/action"].item() == pytest.approx(action, rel=1e-10)
    assert loss.total.item() == pytest.approx(plain.total.item() + 3 * (loc + action), rel=1e-12)
    assert loc > 0
    assert preds.attribute_logits["loc"].grad[1].eq(0).all()


def test_weights_of_objects_scale_contributions_and_not_the_divisor():
    preds = query_predictions(generator(5), 2, 5, attributes=True, role="main")
    weighted = dataclasses.replace(TARGETS, weights=torch.tensor([[0.5, 1.0], [3.0, 1.0]], dtype=torch.float64))
    rule = Rule(assigner=lambda preds, targets: pairs(), terms={"loc": Weighted(term=Attribute(name="loc"))})

    plain, got = (
        Criterion(rules={"main": rule})(Outputs(preds), targets).items[0].contributions
        for targets in (TARGETS, weighted)
    )

    assert got.tolist() == pytest.approx((plain * torch.tensor([0.5, 1.0, 3.0, 1.0])).tolist(), rel=1e-12)


@pytest.mark.parametrize("name", ["loc", "action"])
@pytest.mark.parametrize("dense", [False, True])
def test_gradcheck(name, dense):
    preds = dense_predictions(6, 2) if dense else query_predictions(generator(6), 2, 5, attributes=True)

    def run(logits: torch.Tensor) -> torch.Tensor:
        return Attribute(name=name)(dataclasses.replace(preds, attribute_logits={name: logits}), TARGETS, pairs())

    assert torch.autograd.gradcheck(run, preds.attribute_logits[name], fast_mode=True)


@pytest.mark.parametrize("name", ["loc", "action"])
def test_nothing_known_costs_nothing_and_keeps_the_graph(name):
    preds = query_predictions(generator(7), 2, 5, attributes=True)
    unknown = {key: torch.full_like(of, -1) for key, of in TARGETS.attributes.items()}
    index = torch.zeros(0, dtype=torch.int64)
    none = Assignment(index, index, index, index.bool(), index.double(), torch.tensor(1.0, dtype=torch.float64))

    for targets, pair in ((dataclasses.replace(TARGETS, attributes=unknown), pairs()), (TARGETS, none)):
        got = Attribute(name=name)(preds, targets, pair)
        got.sum().backward()
        assert got.eq(0).all()
        assert preds.attribute_logits[name].grad.eq(0).all()


@pytest.mark.parametrize("place", [(1, 2), (0, 0)])  # an unused slot, and a pair that is not labelled
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 1e300])
@pytest.mark.parametrize("name", ["loc", "action"])
def test_an_extreme_value_where_nothing_is_known_reaches_nothing(name, value, place):
    preds = query_predictions(generator(8), 2, 5, attributes=True)
    logits = preds.attribute_logits[name].detach().clone()
    logits[place] = value
    logits.requires_grad_()

    got = Attribute(name=name)(dataclasses.replace(preds, attribute_logits={name: logits}), TARGETS, pairs())
    got.sum().backward()

    assert got.isfinite().all()
    assert logits.grad.isfinite().all()


def test_counts_over_all_ranks(monkeypatch):
    preds = query_predictions(generator(9), 2, 5, attributes=True)
    alone = Attribute(name="loc")(preds, TARGETS, pairs())
    monkeypatch.setattr("boxwright.losses.terms.attributes.sum_over_ranks", lambda weight: weight + 6)

    assert torch.allclose(Attribute(name="loc")(preds, TARGETS, pairs()), alone * 2 / 8)


def test_a_layer_without_the_head_is_refused_or_skipped():
    preds = query_predictions(generator(0), 2, 5)

    with pytest.raises(ShapeError, match=r"expected 'loc' for role 'decoder', got none; .*missing=\"skip\""):
        Attribute(name="loc")(preds, TARGETS, pairs())
    assert Attribute(name="loc", missing="skip")(preds, TARGETS, pairs()).tolist() == [0, 0, 0, 0]


def test_mistakes_are_named():
    preds = query_predictions(generator(0), 2, 5, attributes=True)

    with pytest.raises(ShapeError, match=r"Targets.attributes: expected labels of 'loc', got none"):
        Attribute(name="loc")(preds, dataclasses.replace(TARGETS, attributes=None), pairs())
    wrong = dataclasses.replace(TARGETS, attributes={"loc": torch.zeros(2, 2)})
    with pytest.raises(
        ShapeError, match=r"expected int64 \(B, M\), or floating point \(B, M, 4\) .* got torch.float32"
    ):
        Attribute(name="loc")(preds, wrong, pairs())
    with pytest.raises(ShapeError, match=r"weights of 'loc': expected 4 numbers, one for each class, got 2"):
        Attribute(name="loc", weights=(1.0, 2.0))(preds, TARGETS, pairs())
    with pytest.raises(ConfigError, match=r"expected numbers of at least 0, got nan"):
        Attribute(name="loc", weights=(1.0, math.nan))
