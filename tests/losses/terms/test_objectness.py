# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import dataclasses
import math

import pytest
import torch
from tests.losses.anchor_scenes import by_level, joined, pyramid, random_maps
from tests.losses.scenes import generator, make_targets, random_targets
from tests.reference import anchor_based as reference

from boxwright.errors import ConfigError, ShapeError
from boxwright.losses.assign import AnchorRatio
from boxwright.losses.terms import Objectness
from boxwright.losses.terms.anchor_box import overlap_in_cells
from boxwright.losses.terms.objectness import AutoBalance, published_balance
from boxwright.structures import Predictions, Targets

GRID = pyramid()
CROWD = make_targets([(10, 10, 40, 40), (12, 11, 41, 38), (9, 12, 44, 40), (60, 20, 80, 50)], [(0, 0, 30, 30)])


def scene(targets: Targets = CROWD, seed: int = 0):
    preds = joined(random_maps(generator(seed), len(targets.labels), GRID), GRID, table=False).final
    return preds, AnchorRatio()(preds, targets)


def expected_target(preds, targets, pairs, duplicates, gr=1.0):
    """Row by row, as the specification writes it: (image, anchor) -> (value, slot)."""
    fit = overlap_in_cells(preds, targets, pairs, "ciou").tolist()
    found: dict[tuple[int, int], tuple[float, int]] = {}
    order = sorted(range(len(fit)), key=lambda p: fit[p]) if duplicates == "max" else range(len(fit))
    for p in order:
        place = pairs.image[p].item(), pairs.anchor[p].item()
        found[place] = (1 - gr) + gr * max(0.0, fit[p]), pairs.target[p].item()
    return found


@pytest.mark.parametrize("duplicates", ["max", "last"])
@pytest.mark.parametrize("gr", [1.0, 0.4])
def test_target_of_shared_candidates(duplicates, gr):
    preds, pairs = scene()

    wanted, winners = Objectness(duplicates=duplicates, gr=gr).target(preds, CROWD, pairs)

    expected = expected_target(preds, CROWD, pairs, duplicates, gr)
    assert len(expected) < len(pairs.image)  # some are shared
    for (image, anchor), (value, slot) in expected.items():
        assert wanted[image, anchor].item() == pytest.approx(value, rel=1e-12)
        here = winners.valid & (winners.image == image) & (winners.anchor == anchor)
        assert winners.target[here].tolist() == [slot]
    assert wanted.count_nonzero() <= len(expected)


def test_equals_a_loop_over_every_candidate():
    preds, pairs = scene()

    got = Objectness(balance=(3.0, 2.0, 0.5))(preds, CROWD, pairs)

    wanted = expected_target(preds, CROWD, pairs, "max")
    for image in range(2):
        for anchor, logit in enumerate(preds.objectness[image].tolist()):
            level = GRID.level[anchor].item()
            cost = reference.bce(logit, wanted.get((image, anchor), (0.0, 0))[0])
            share = (3.0, 2.0, 0.5)[level] / (2 * GRID.level_sizes[level])
            assert got[image, anchor].item() == pytest.approx(cost * share, rel=1e-10)


@pytest.mark.parametrize("weight", [1.0, 2.5])
@pytest.mark.parametrize("gamma", [0.0, 1.5])
def test_positive_weight_and_focal_factor(weight, gamma):
    preds, pairs = scene()
    term = Objectness(balance=(1.0, 1.0, 1.0), pos_weight=weight, focal_gamma=gamma)

    got = term(preds, CROWD, pairs)

    wanted = term.target(preds, CROWD, pairs)[0]
    for image, anchor in [(0, 0), *zip(pairs.image.tolist(), pairs.anchor.tolist(), strict=True)]:
        z, y = preds.objectness[image, anchor].item(), wanted[image, anchor].item()
        p = 1 / (1 + math.exp(-z))
        cost = -weight * y * math.log(p) - (1 - y) * math.log(1 - p)
        if gamma:
            q = y * p + (1 - y) * (1 - p)
            cost *= (y * 0.25 + (1 - y) * 0.75) * (1 - q) ** gamma
        share = 1 / (2 * GRID.level_sizes[GRID.level[anchor]])
        assert got[image, anchor].item() == pytest.approx(cost * share, rel=1e-9)


@pytest.mark.parametrize("term", [Objectness(), Objectness(pos_weight=2.0, gr=0.5), Objectness(focal_gamma=1.5)])
def test_gradcheck(term):
    preds, pairs = scene()

    def run(logits: torch.Tensor) -> torch.Tensor:
        return term(dataclasses.replace(preds, objectness=logits), CROWD, pairs)

    assert torch.autograd.gradcheck(run, preds.objectness.detach().clone().requires_grad_(), fast_mode=True)


def test_the_overlap_is_a_constant():
    preds, pairs = scene()
    raw = preds.box_raw.detach().clone().requires_grad_()
    plane = preds.objectness.detach().clone().requires_grad_()

    Objectness()(dataclasses.replace(preds, box_raw=raw, objectness=plane), CROWD, pairs).sum().backward()

    assert raw.grad is None
    assert plane.grad.ne(0).all()


def test_no_pairs_make_every_candidate_background():
    preds, pairs = scene(make_targets([], []))

    got = Objectness(balance=(1.0, 1.0, 1.0))(preds, make_targets([], []), pairs)

    share = torch.tensor([1 / (2 * size) for size in GRID.level_sizes], dtype=torch.float64)[GRID.level]
    assert torch.allclose(got, torch.nn.functional.softplus(preds.objectness, threshold=100) * share, rtol=1e-12)


def test_single_levels_add_up_to_the_whole():
    maps = random_maps(generator(1), 2, GRID)
    whole = joined(maps, GRID).final
    parts = by_level(maps, GRID)

    got = [Objectness()(preds, CROWD, AnchorRatio()(preds, CROWD)) for preds in (*parts.auxiliary, parts.final)]

    assert torch.allclose(torch.cat(got, dim=1), Objectness()(whole, CROWD, AnchorRatio()(whole, CROWD)), rtol=1e-12)


def test_the_winning_object_decides_the_weight():
    preds, pairs = scene()
    weights = torch.tensor([[0.0, 2.0, 5.0, 7.0], [3.0, 1.0, 1.0, 1.0]], dtype=torch.float64)
    term = Objectness()

    got = term(preds, dataclasses.replace(CROWD, weights=weights), pairs)

    plain, expected = term(preds, CROWD, pairs), torch.ones_like(got)
    for (image, anchor), (_, slot) in expected_target(preds, CROWD, pairs, "max").items():
        expected[image, anchor] = weights[image, slot]
    assert torch.allclose(got, plain * expected, rtol=1e-12)


def test_ignored_background_costs_nothing_even_when_infinite():
    preds, pairs = scene()
    region = torch.tensor([[[44.0, 0.0, 96.0, 64.0]], [[0.0, 0.0, 0.0, 0.0]]], dtype=torch.float64)
    inside = (GRID.points[:, 0] > 44) & (GRID.points[:, 1] < 64)
    matched = torch.zeros(2, len(inside), dtype=torch.bool)
    matched[pairs.image, pairs.anchor] = True
    free = inside & ~matched[0]
    plane = preds.objectness.detach().clone()
    plane[0, free] = torch.inf
    plane.requires_grad_()

    got = Objectness()(dataclasses.replace(preds, objectness=plane), dataclasses.replace(CROWD, ignore=region), pairs)
    got.sum().backward()

    assert free.any()
    assert got[0, free].eq(0).all()
    assert plane.grad.isfinite().all()
    expected = Objectness()(preds, CROWD, pairs).detach()
    expected[0, free] = 0
    assert torch.allclose(got, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("value", [1e4, -1e4, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_extreme_logits_of_background_touch_nothing_else(value, dtype):
    preds, pairs = scene()
    plane = preds.objectness.detach().to(dtype)
    matched = torch.zeros_like(plane, dtype=torch.bool)
    matched[pairs.image, pairs.anchor] = True
    image, anchor = (~matched).nonzero()[0].tolist()
    plane[image, anchor] = value
    plane.requires_grad_()

    got = Objectness()(dataclasses.replace(preds, objectness=plane), CROWD, pairs)
    got.sum().backward()

    assert plane.grad.isfinite().all()
    assert got[image, anchor].item() == (0 if value < 0 else pytest.approx(got[image, anchor].item()))
    assert got[matched].isfinite().all()


def test_unused_slots_win_nothing():
    preds, pairs = scene()
    unused = dataclasses.replace(pairs, valid=torch.zeros_like(pairs.valid), weight=pairs.weight * 0)

    wanted, winners = Objectness().target(preds, CROWD, unused)

    assert wanted.eq(0).all()
    assert not winners.valid.any()


def test_published_balances():
    assert [published_balance(levels) for levels in (1, 2, 3, 5)] == [
        (4.0,),
        (4.0, 1.0),
        (4.0, 1.0, 0.4),
        (4.0, 1.0, 0.25, 0.06, 0.02),
    ]
    with pytest.raises(ConfigError, match="1 to 5 levels, got 6"):
        published_balance(6)


def test_a_level_alone_must_say_how_many_there_are():
    parts = by_level(random_maps(generator(0), 2, GRID), GRID)
    preds = dataclasses.replace(parts.final, grid=dataclasses.replace(parts.final.grid, total_levels=None))

    with pytest.raises(ShapeError, match=r"Grid\.total_levels"):
        Objectness()(preds, CROWD, AnchorRatio()(preds, CROWD))


def test_too_few_weights_are_refused():
    preds, pairs = scene()

    with pytest.raises(ShapeError, match="a weight for each of 3 levels, got 2"):
        Objectness(balance=(1.0, 2.0))(preds, CROWD, pairs)


def test_predictions_without_objectness_are_refused():
    preds, pairs = scene()

    with pytest.raises(ShapeError, match=r"Predictions.objectness: expected \(B, A\), got None"):
        Objectness()(dataclasses.replace(preds, objectness=None), CROWD, pairs)


def test_images_and_slots_may_be_permuted():
    targets = random_targets(generator(3), (5, 0, 7))
    preds, pairs = scene(targets)
    order, slots = torch.tensor([2, 0, 1]), torch.tensor([3, 7, 0, 5, 1, 6, 2, 4])
    moved = Targets(*(x[order][:, slots] for x in (targets.labels, targets.boxes, targets.valid)))
    there: Predictions = dataclasses.replace(
        preds, **{name: getattr(preds, name)[order] for name in ("logits", "box_raw", "objectness")}
    )

    got = Objectness()(there, moved, AnchorRatio()(there, moved))

    assert torch.allclose(got, Objectness()(preds, targets, pairs)[order], rtol=1e-12)


def test_reference_stride_that_is_not_there_is_named():
    with pytest.raises(ShapeError, match=r"reference_stride: expected one of the strides \[8, 16, 32\], got 64"):
        Objectness(balance=AutoBalance(reference_stride=64)).remembers.start_for([GRID])


@pytest.mark.parametrize("setting", [{"gr": 1.5}, {"gr": math.nan}, {"focal_gamma": 0.5}, {"focal_gamma": -1.0}])
def test_settings_out_of_range_are_refused(setting):
    with pytest.raises(ConfigError, match=rf"Objectness\.{next(iter(setting))}: expected"):
        Objectness(**setting)
