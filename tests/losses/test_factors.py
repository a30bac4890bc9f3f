# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import dataclasses
from typing import ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.losses.scenes import CLASSES, criterion, generator, make_targets, random_predictions, random_targets

from boxwright.errors import ShapeError
from boxwright.losses.assign import ATSS, SimOTA, TaskAligned
from boxwright.losses.factors import candidate_factors, in_regions, with_factors
from boxwright.structures import Assignment, Outputs, Predictions, Targets


def pairs_of(rows: list[tuple[int, int, int, bool]]) -> Assignment:
    image, anchor, target, valid = (torch.tensor(column) for column in zip(*rows, strict=True))
    return Assignment(
        image, anchor, target, valid, weight=valid.double() * 0.5, normalizer=torch.tensor(4.0, dtype=torch.float64)
    )


# A grid of 64 x 96 px with strides 8, 16, 32: candidate 0 has its centre at (4, 4), candidate 13 at (12, 12).
PAIRS = pairs_of([(0, 0, 0, True), (0, 13, 1, True), (1, 2, 0, True), (1, 0, 1, False)])
WEIGHTS = torch.tensor([[2.0, 0.25], [0.0, 9.0]], dtype=torch.float64)


class Scoped:
    """A term that only says what its contributions belong to."""

    def __init__(self, scope: str) -> None:
        self.scope = scope


def scene(weights=None, ignore=None) -> tuple[Predictions, Targets]:
    targets = make_targets([(0, 0, 30, 30), (0, 0, 60, 60)], [(0, 0, 30, 30), (5, 5, 9, 9)])
    return random_predictions(generator(0), 2), dataclasses.replace(targets, weights=weights, ignore=ignore)


def regions(*images: list[tuple[float, float, float, float]]) -> torch.Tensor:
    width = max(map(len, images))
    return torch.tensor([[*rows, *[(0.0,) * 4] * (width - len(rows))] for rows in images], dtype=torch.float64)


@pytest.mark.parametrize("scope", ["pair", "candidate", "image", "own", None])
def test_without_weights_and_regions_contributions_are_the_same_object(scope):
    preds, targets = scene()
    values = torch.ones(4)

    assert with_factors(values, Scoped(scope) if scope else object(), preds, targets, PAIRS) is values


def test_pairs_are_multiplied_by_their_objects_weight():
    preds, targets = scene(WEIGHTS)
    values = torch.tensor([1.0, 2.0, torch.inf, 0.0], dtype=torch.float64)

    for term in (Scoped("pair"), object()):  # by name, and by shape
        got = with_factors(values, term, preds, targets, PAIRS)
        # weight 0 leaves nothing, not even of infinity; a slot that is not valid belongs to no object
        assert got.tolist() == [2.0, 0.5, 0.0, 0.0]


def test_candidates_take_their_objects_weight_and_background_keeps_one():
    preds, targets = scene(WEIGHTS)

    factor = candidate_factors(preds, targets, PAIRS)

    expected = torch.ones_like(factor)
    expected[0, 0], expected[0, 13], expected[1, 2] = 2.0, 0.25, 0.0
    assert torch.equal(factor, expected)
    values = torch.rand(factor.shape, generator=generator(1), dtype=torch.float64)
    assert torch.equal(with_factors(values, Scoped("candidate"), preds, targets, PAIRS), values * expected)


def test_a_candidate_of_several_objects_takes_the_largest_weight_in_any_order():
    preds, targets = scene(WEIGHTS)
    rows = [(0, 7, 0, True), (0, 7, 1, True), (1, 7, 1, False)]

    for order in (rows, rows[::-1]):
        assert candidate_factors(preds, targets, pairs_of(order))[:, 7].tolist() == [2.0, 1.0]


@pytest.mark.parametrize("scope", ["image", "own"])
def test_terms_on_images_and_terms_that_see_to_it_themselves_stay(scope):
    preds, targets = scene(WEIGHTS, regions([(0, 0, 96, 64)], []))
    values = torch.rand(2, dtype=torch.float64)

    assert with_factors(values, Scoped(scope), preds, targets, PAIRS) is values


def test_only_unmatched_candidates_inside_a_region_are_ignored():
    # (0, 0)..(16, 12): centres (4, 4) and (12, 4) of stride 8, and (8, 8) of stride 16; (4, 12) lies on its border.
    preds, targets = scene(None, regions([(0, 0, 16, 12)], []))

    factor = candidate_factors(preds, targets, PAIRS)

    fine, middle = 8 * 12, 4 * 6
    assert factor[0, :fine].eq(0).nonzero().flatten().tolist() == [1]  # candidate 0 is matched and learns
    assert factor[0, fine : fine + middle].eq(0).nonzero().flatten().tolist() == [0]
    assert factor[0, fine + middle :].eq(1).all()
    assert factor[1].eq(1).all()


def test_matched_candidates_inside_a_region_keep_their_objects_weight():
    preds, targets = scene(WEIGHTS, regions([(-10, -10, 200, 200)], [(-10, -10, 200, 200)]))

    factor = candidate_factors(preds, targets, PAIRS)

    assert factor.nonzero().tolist() == [[0, 0], [0, 13]]
    assert (factor[0, 0].item(), factor[0, 13].item()) == (2.0, 0.25)


@dataclasses.dataclass(frozen=True)
class Corners:
    """Reads raw outputs as boxes."""

    raw: ClassVar[int] = 4

    def __call__(self, raw, points, strides, extra=None):
        return raw


def test_queries_are_ignored_by_more_than_half_of_their_box():
    boxes = [(0, 0, 10, 10), (5, 0, 15, 10), (4.9, 0, 14.9, 10), (40, 40, 50, 50), (20, 20, 20, 20)]
    raw = torch.tensor([boxes, boxes], dtype=torch.float64)
    preds = Predictions(torch.zeros(2, 5, CLASSES), raw, Corners(), input_size=(64, 96))

    inside = in_regions(preds, regions([(0, 0, 10, 10)], [(45, 45, 60, 60), (40, 40, 44, 50), (20, 20, 30, 30)]))

    # exactly half is not more than half; a quarter and two fifths in two regions are not joined; a point has no area
    assert inside.tolist() == [[True, False, True, False, False], [False] * 5]


def test_padding_rows_of_regions_ignore_nothing():
    preds, _ = scene()

    assert not in_regions(preds, torch.zeros(2, 3, 4)).any()
    assert not in_regions(preds, torch.zeros(2, 0, 4)).any()


def test_contributions_of_no_known_shape_are_an_error():
    preds, targets = scene(WEIGHTS)

    with pytest.raises(ShapeError, match=r"a term's contributions: expected \(P,\) = \(4,\) or \(B, A\) = \(2, 126\)"):
        with_factors(torch.zeros(3), object(), preds, targets, PAIRS)


def run(preds: Predictions, targets: Targets, assigner=None) -> tuple[dict[str, float], torch.Tensor, torch.Tensor]:
    fresh = {name: getattr(preds, name).detach().clone().requires_grad_() for name in ("logits", "box_raw")}
    preds, rules = dataclasses.replace(preds, **fresh), criterion(assigner)
    loss = rules(Outputs(preds), rules.prepare(targets, preds.grid))
    loss.total.backward()
    return loss.scalars(), preds.logits.grad, preds.box_raw.grad


def same(left, right) -> None:
    assert left[0] == pytest.approx(right[0], rel=1e-12)
    assert torch.allclose(left[1], right[1], rtol=1e-10, atol=1e-16)
    assert torch.allclose(left[2], right[2], rtol=1e-10, atol=1e-16)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), counts=st.lists(st.integers(0, 6), min_size=1, max_size=3))
def test_weights_of_one_and_regions_that_cover_nothing_change_nothing(seed, counts):
    preds, targets = random_predictions(generator(seed), len(counts)), random_targets(generator(seed), counts)
    ones = dataclasses.replace(targets, weights=torch.ones(targets.labels.shape))
    outside = torch.tensor([-90.0, -90.0, -1.0, 500.0]).expand(len(counts), 2, 4)

    plain = run(preds, targets)

    same(run(preds, ones), plain)
    same(run(preds, dataclasses.replace(ones, ignore=torch.zeros(len(counts), 1, 4))), plain)
    same(run(preds, dataclasses.replace(targets, ignore=outside)), plain)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), factor=st.floats(0.125, 8.0))
def test_one_weight_for_all_objects_scales_all_but_the_background(seed, factor):
    preds, targets = random_predictions(generator(seed), 2), random_targets(generator(seed), (3, 5))
    weights = torch.full(targets.labels.shape, factor, dtype=torch.float64)

    plain, scaled = run(preds, targets)[0], run(preds, dataclasses.replace(targets, weights=weights))[0]

    for name in ("main/box", "main/dfl"):
        assert scaled[name] == pytest.approx(factor * plain[name], rel=1e-10)
    loss = criterion()(Outputs(preds), targets)
    matched = candidate_factors(preds, dataclasses.replace(targets, weights=weights * 0), loss.assignments["main"]) == 0
    scores = next(item.contributions for item in loss.items if item.name == "main/cls") * 0.5
    expected = factor * scores[matched].sum() + scores[~matched].sum()
    assert scaled["main/cls"] == pytest.approx(expected.item(), rel=1e-10)


@pytest.mark.parametrize("assigner", [TaskAligned(), SimOTA(), ATSS()], ids=["tal", "simota", "atss"])
def test_a_region_over_the_image_leaves_the_matched_candidates_and_the_divisor(assigner):
    preds, targets = random_predictions(generator(3), 2), random_targets(generator(3), (4, 5))
    covered = dataclasses.replace(targets, ignore=torch.tensor([[[-9.0, -9.0, 999.0, 999.0]]]).expand(2, 1, 4))
    rules = criterion(assigner)

    plain, ignoring = (rules(Outputs(preds), of) for of in (targets, covered))

    pairs = plain.assignments["main"]
    assert torch.equal(ignoring.assignments["main"].normalizer, pairs.normalizer)
    for item, other in zip(plain.items, ignoring.items, strict=True):
        if item.name != "main/cls":
            assert torch.equal(item.contributions, other.contributions)
    held = torch.zeros(preds.logits.shape[:2], dtype=torch.bool)
    held[pairs.image[pairs.valid], pairs.anchor[pairs.valid]] = True
    before, after = plain.items[1].contributions, ignoring.items[1].contributions
    assert torch.allclose(after[held], before[held], rtol=1e-12)
    assert after[~held].eq(0).all()


def test_a_region_over_some_cells_removes_exactly_their_background():
    preds, targets = random_predictions(generator(4), 2), random_targets(generator(4), (2, 3))
    ignoring = dataclasses.replace(targets, ignore=regions([(0, 0, 50, 40)], [(60, 0, 96, 64), (0, 40, 20, 64)]))
    inside = in_regions(preds, ignoring.ignore)

    plain, got = criterion()(Outputs(preds), targets), criterion()(Outputs(preds), ignoring)

    pairs = plain.assignments["main"]
    inside[pairs.image[pairs.valid], pairs.anchor[pairs.valid]] = False
    removed = plain.items[1].contributions[inside].sum() * 0.5
    assert removed > 0
    assert got.components["main/cls"].item() == pytest.approx(
        (plain.components["main/cls"] - removed).item(), rel=1e-12
    )


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 1e300])
def test_whatever_stands_inside_a_region_stays_out_of_loss_and_gradient(value):
    preds, targets = random_predictions(generator(5), 2), random_targets(generator(5), (0, 3))
    ignoring = dataclasses.replace(targets, ignore=regions([(0, 0, 50, 40)], []))
    inside = in_regions(preds, ignoring.ignore)
    wild = dataclasses.replace(
        preds, logits=torch.where(inside[..., None], torch.full_like(preds.logits, value), preds.logits).detach()
    )

    got, calm = run(wild, ignoring), run(preds, ignoring)

    same(got, calm)
    assert got[1][inside].eq(0).all()


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_weights_travel_with_their_objects(seed):
    source = generator(seed)
    preds, targets = random_predictions(source, 2), random_targets(source, (4, 5))
    weights = torch.rand(targets.labels.shape, generator=source, dtype=torch.float64)
    flipped = Targets(
        torch.nn.functional.pad(targets.labels.flip(1), (0, 3)),
        torch.nn.functional.pad(targets.boxes.flip(1), (0, 0, 0, 3)),
        torch.nn.functional.pad(targets.valid.flip(1), (0, 3)),
        weights=torch.nn.functional.pad(weights.flip(1), (0, 3)),
    )

    same(run(preds, flipped), run(preds, dataclasses.replace(targets, weights=weights)))
