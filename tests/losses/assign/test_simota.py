# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import dataclasses
import math

import pytest
import torch
from tests.losses.assign.forms import assert_refused, faster, pairs_of, prepare
from tests.losses.scenes import (
    BINS,
    CLASSES,
    SIZE,
    STRIDES,
    generator,
    make_targets,
    random_predictions,
    random_targets,
)
from tests.reference import simota as reference

from boxwright.errors import ConfigError
from boxwright.losses.assign import SimOTA
from boxwright.ops.decode import Distance
from boxwright.ops.grid import grid_for_image
from boxwright.structures import Assignment, Predictions, Targets


def found(pairs: Assignment) -> dict[tuple[int, int], tuple[int, float]]:
    """{(image, anchor): (slot, weight)} of the positives, which must not repeat."""
    rows = zip(
        *(part[pairs.valid].tolist() for part in (pairs.image, pairs.anchor, pairs.target, pairs.weight)), strict=True
    )
    chosen = {(image, anchor): (slot, weight) for image, anchor, slot, weight in rows}
    assert len(chosen) == int(pairs.valid.sum())
    return chosen


def class_costs(preds: Predictions) -> list:
    """Cross-entropy of every candidate with every class as its label, by plain numbers."""
    costs = []
    for image, rows in enumerate(preds.logits.tolist()):
        costs.append([])
        for anchor, row in enumerate(rows):
            if preds.objectness is not None:
                objectness = 1 / (1 + math.exp(-preds.objectness[image, anchor].item()))
                total = sum(map(math.exp, row))
                p = [math.exp(z) / total if preds.exclusive else 1 / (1 + math.exp(-z)) for z in row]
                s = [math.sqrt(value * objectness) for value in p]
                misses = sum(-math.log(1 - value) for value in s)
                costs[-1].append([misses + math.log(1 - value) - math.log(value) for value in s])
            elif preds.exclusive:
                costs[-1].append([math.log(1 + sum(map(math.exp, row))) - z for z in row])
            else:
                costs[-1].append([sum(math.log1p(math.exp(v)) for v in row) - z for z in row])
    return costs


def expected(preds: Predictions, targets: Targets, **options) -> dict[tuple[int, int], tuple[int, float]]:
    grid = preds.cells
    return reference.assign(
        class_costs(preds),
        preds.boxes.tolist(),
        grid.points.tolist(),
        grid.strides.tolist(),
        targets.labels.tolist(),
        targets.boxes.tolist(),
        targets.valid.tolist(),
        **options,
    )


def same(got: dict, wanted: dict) -> None:
    assert got.keys() == wanted.keys()
    for key, (slot, overlap) in wanted.items():
        assert got[key] == (slot, pytest.approx(overlap, rel=1e-9, abs=1e-12))


@pytest.mark.parametrize("options", [{}, {"topk": 3}, {"radius": 1.5}, {"radius": 1.3, "iou_gain": 1.0}])
@pytest.mark.parametrize("seed", range(4))
def test_equals_the_loops(seed, options):
    preds = random_predictions(generator(seed), 3)
    targets = random_targets(generator(seed), (4, 0, 11))

    pairs = pairs_of(SimOTA(**options), preds, targets)

    same(found(pairs), expected(preds, targets, **options))
    weights = sum(weight for _, weight in found(pairs).values())
    assert pairs.normalizer.item() == pytest.approx(max(weights, 1.0))
    assert pairs.weight[~pairs.valid].eq(0).all()


@pytest.mark.parametrize(("objectness", "exclusive"), [(False, True), (True, False), (True, True)])
def test_other_heads_have_their_own_class_cost(objectness, exclusive):
    preds = random_predictions(generator(7), 2)
    plane = torch.randn(preds.logits.shape[:2], generator=generator(8), dtype=torch.float64)
    preds = dataclasses.replace(preds, exclusive=exclusive, objectness=plane if objectness else None)
    targets = random_targets(generator(7), (5, 6))

    same(found(pairs_of(SimOTA(), preds, targets)), expected(preds, targets))


@pytest.mark.parametrize("prior_first", [False, True])
def test_several_candidates_per_cell(prior_first):
    priors = [[(10, 14), (20, 9)], [(30, 20), (25, 40)]]
    grid = grid_for_image((64, 64), (8, 16), priors=priors, prior_first=prior_first)
    anchors = len(grid.points)
    logits = torch.randn(2, anchors, CLASSES, generator=generator(0), dtype=torch.float64)
    raw = torch.randn(2, anchors, 4 * BINS, generator=generator(1), dtype=torch.float64)
    preds = Predictions(logits, raw, Distance(num_bins=BINS), dataclasses.replace(grid, prior_wh=None))
    targets = random_targets(generator(2), (5, 3), (64, 64))

    same(found(pairs_of(SimOTA(), preds, targets)), expected(preds, targets))


def test_weights_may_be_one():
    preds, targets = random_predictions(generator(3), 2), random_targets(generator(3), (5, 6))

    soft, hard = pairs_of(SimOTA(), preds, targets), pairs_of(SimOTA(quality="one"), preds, targets)

    assert found(hard).keys() == found(soft).keys()
    assert hard.weight[hard.valid].eq(1).all()
    assert hard.normalizer.item() == len(found(hard))


def test_no_objects():
    preds = random_predictions(generator(0), 2)

    for targets in (make_targets([], []), make_targets([], [], slots=3)):
        pairs = pairs_of(SimOTA(), preds, targets)
        assert not pairs.valid.any()
        assert pairs.normalizer.item() == 1


def test_boxes_without_area_or_far_outside_take_nothing():
    preds = random_predictions(generator(0), 1)

    pairs = pairs_of(SimOTA(), preds, make_targets([(20, 20, 20, 40), (10, 10, 10, 10), (500, 500, 600, 600)]))

    assert not pairs.valid.any()


def test_equal_candidates_go_by_index_and_equal_objects_by_slot():
    preds = random_predictions(generator(0), 1)
    flat = dataclasses.replace(preds, logits=torch.zeros_like(preds.logits), box_raw=torch.zeros_like(preds.box_raw))
    box = (16.0, 16.0, 48.0, 48.0)

    same(found(pairs_of(SimOTA(), flat, make_targets([box]))), expected(flat, make_targets([box])))
    twice = found(pairs_of(SimOTA(), flat, make_targets([box, box])))
    assert {slot for slot, _ in twice.values()} == {0}


def test_more_objects_than_candidates():
    preds = random_predictions(generator(5), 1, (32, 32), (16, 32))  # five cells
    targets = random_targets(generator(5), (40,), (32, 32))

    pairs = pairs_of(SimOTA(), preds, targets)

    assert len(faster(SimOTA(), preds, targets).anchor) == 5  # slots, as many as candidates at most
    same(found(pairs), expected(preds, targets))


def test_order_of_images_and_slots_and_padding_change_nothing():
    preds, targets = random_predictions(generator(6), 2), random_targets(generator(6), (6, 4))
    width = targets.labels.shape[1]
    moved = Targets(
        torch.nn.functional.pad(targets.labels.flip(0, 1), (0, 3)),
        torch.nn.functional.pad(targets.boxes.flip(0, 1), (0, 0, 0, 3)),
        torch.nn.functional.pad(targets.valid.flip(0, 1), (0, 3)),
    )
    flipped = dataclasses.replace(preds, logits=preds.logits.flip(0), box_raw=preds.box_raw.flip(0))

    plain, other = found(pairs_of(SimOTA(), preds, targets)), found(pairs_of(SimOTA(), flipped, moved))

    back = {(1 - image, anchor): (width - 1 - slot, weight) for (image, anchor), (slot, weight) in other.items()}
    same(back, plain)


def test_float32_finds_the_same_pairs():
    preds = random_predictions(generator(9), 2)
    half = dataclasses.replace(preds, logits=preds.logits.float(), box_raw=preds.box_raw.float())
    targets = random_targets(generator(9), (5, 6))

    pairs = pairs_of(SimOTA(), half, targets)

    assert pairs.weight.dtype == torch.float32
    assert {key: slot for key, (slot, _) in found(pairs).items()} == {
        key: slot for key, (slot, _) in found(pairs_of(SimOTA(), preds, targets)).items()
    }


def test_mistakes_say_what_was_expected():
    preds = random_predictions(generator(0), 1)

    assert_refused(SimOTA(), preds, make_targets([(0, 0, 30, 30)], labels=[[7]]), r"class indices below 3, .*, got 7")
    assert_refused(
        SimOTA(),
        preds,
        Targets(torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, 1, 5), torch.ones(1, 1) > 0),
        r"SimOTA: expected axis-aligned boxes",
    )
    with pytest.raises(ConfigError, match=r"topk of at least 1 and radius above 0, got 10 and 0"):
        SimOTA(radius=0.0)


def test_prepare_counts_on_the_host_and_is_idempotent():
    targets = random_targets(generator(0), (3, 1))
    grid = grid_for_image(SIZE, STRIDES)

    prepared = prepare(SimOTA(), targets, grid)

    assert prepared.objects is not None
    assert prepare(SimOTA(), prepared, grid) is prepared
