# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import dataclasses
import itertools

import pytest
import torch
from tests.losses.assign.forms import assert_refused, faster, pairs_of, prepare
from tests.losses.assign.test_simota import found
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
from tests.reference import atss as reference
from tests.reference.overlap import iou

from boxwright.errors import ConfigError
from boxwright.losses.assign import ATSS
from boxwright.ops.decode import Distance
from boxwright.ops.grid import grid_for_image
from boxwright.structures import Predictions, Targets


def slots(pairs) -> dict[tuple[int, int], int]:
    return {key: slot for key, (slot, _) in found(pairs).items()}


def expected(preds: Predictions, targets: Targets, *, topk: int = 9, prior_scale: float = 8.0, per_cell: int = 1):
    grid = preds.cells
    half = grid.strides[:, None] * prior_scale / 2 if grid.prior_wh is None else grid.prior_wh / 2
    priors = torch.cat((grid.points - half, grid.points + half), dim=1).double()
    return reference.assign(
        priors.tolist(),
        grid.points.tolist(),
        grid.level.tolist(),
        targets.boxes.tolist(),
        targets.valid.tolist(),
        topk=topk,
        per_cell=per_cell,
    )


@pytest.mark.parametrize(
    "options", [{}, {"topk": 1}, {"topk": 2}, {"topk": 4, "prior_scale": 3.0}, {"topk": 40}, {"topk": 200}]
)
@pytest.mark.parametrize("seed", range(4))
def test_equals_the_loops(seed, options):
    preds = random_predictions(generator(seed), 3)
    targets = random_targets(generator(seed), (6, 0, 15))

    pairs = pairs_of(ATSS(**options), preds, targets)

    assert slots(pairs) == expected(preds, targets, **options)
    assert pairs.weight[pairs.valid].eq(1).all()
    assert pairs.normalizer.item() == max(len(slots(pairs)), 1)


@pytest.mark.parametrize("topk", [1, 2, 3, 6, 9])
def test_centres_anywhere_around_the_image(topk):
    # The nearest cells of a centre far outside lie along a border; on cell borders several are equally near.
    preds = random_predictions(generator(0), 1)
    centres = [(x, y) for x in (-200, -9, 0, 8, 16, 44, 96, 140) for y in (-70, 0, 4, 32, 63, 300)]
    targets = make_targets([(x - 250, y - 250, x + 250, y + 250) for x, y in centres])

    pairs = [
        pairs_of(ATSS(topk=topk), preds, make_targets([tuple(box)])) for box in targets.boxes[0].tolist()
    ]  # one object at a time, so that no conflict hides a difference

    for box, pair in zip(targets.boxes[0].tolist(), pairs, strict=True):
        assert slots(pair) == expected(preds, make_targets([tuple(box)]), topk=topk)


@pytest.mark.parametrize("prior_first", [False, True])
def test_priors_of_the_grid(prior_first):
    priors = [[(10, 14), (20, 9)], [(30, 20), (25, 40)]]
    grid = grid_for_image((64, 96), (8, 16), priors=priors, prior_first=prior_first)
    logits = torch.randn(2, len(grid.points), CLASSES, generator=generator(0), dtype=torch.float64)
    raw = torch.randn(2, len(grid.points), 4 * BINS, generator=generator(1), dtype=torch.float64)
    preds = Predictions(logits, raw, Distance(num_bins=BINS), grid)
    targets = random_targets(generator(2), (7, 4))
    # Corners on multiples of 8 px: several cells are equally near, and the last one taken is taken with all its priors.
    on_borders = dataclasses.replace(targets, boxes=(targets.boxes / 8).round() * 8)

    for labels, topk in itertools.product((targets, on_borders), (9, 1, 3)):
        assigner = ATSS(topk=topk)
        assert slots(pairs_of(assigner, preds, labels)) == expected(preds, labels, topk=topk, per_cell=2)


def test_weights_may_be_the_overlap_of_the_predicted_box():
    preds, targets = random_predictions(generator(3), 2), random_targets(generator(3), (5, 6))

    soft = found(pairs_of(ATSS(quality="iou"), preds, targets))

    assert {key: slot for key, (slot, _) in soft.items()} == slots(pairs_of(ATSS(), preds, targets))
    for (image, anchor), (slot, weight) in soft.items():
        boxes = preds.boxes[image, anchor].tolist(), targets.boxes[image, slot].tolist()
        assert weight == pytest.approx(iou(*boxes), rel=1e-9, abs=1e-12)


def test_no_objects():
    preds = random_predictions(generator(0), 2)

    for targets in (make_targets([], []), make_targets([], [], slots=3)):
        pairs = pairs_of(ATSS(), preds, targets)
        assert not pairs.valid.any()
        assert pairs.normalizer.item() == 1


def test_boxes_without_area_take_nothing():
    pairs = pairs_of(ATSS(), random_predictions(generator(0), 1), make_targets([(20, 20, 20, 40), (10, 10, 10, 10)]))

    assert not pairs.valid.any()


def test_equal_objects_go_by_slot():
    preds = random_predictions(generator(0), 1)
    box = (16.0, 16.0, 48.0, 48.0)

    assert set(slots(pairs_of(ATSS(), preds, make_targets([box, box]))).values()) == {0}


def test_more_objects_than_candidates():
    preds = random_predictions(generator(5), 1, (32, 32), (16, 32))  # five cells
    targets = random_targets(generator(5), (40,), (32, 32))

    pairs = pairs_of(ATSS(), preds, targets)

    assert len(faster(ATSS(), preds, targets).anchor) == 5  # slots, as many as candidates at most
    assert slots(pairs) == expected(preds, targets)


def test_order_of_images_and_slots_and_padding_change_nothing():
    preds, targets = random_predictions(generator(6), 2), random_targets(generator(6), (6, 4))
    width = targets.labels.shape[1]
    moved = Targets(
        torch.nn.functional.pad(targets.labels.flip(0, 1), (0, 3)),
        torch.nn.functional.pad(targets.boxes.flip(0, 1), (0, 0, 0, 3)),
        torch.nn.functional.pad(targets.valid.flip(0, 1), (0, 3)),
    )

    other = slots(pairs_of(ATSS(), preds, moved))

    back = {(1 - image, anchor): width - 1 - slot for (image, anchor), slot in other.items()}
    assert back == slots(pairs_of(ATSS(), preds, targets))


def test_mistakes_say_what_was_expected():
    preds = random_predictions(generator(0), 1)

    assert_refused(ATSS(), preds, make_targets([(0, 0, 30, 30)], labels=[[7]]), r"class indices below 3, .*, got 7")
    assert_refused(
        ATSS(),
        preds,
        Targets(torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, 1, 5), torch.ones(1, 1) > 0),
        r"ATSS: expected axis-aligned boxes",
    )
    assert_refused(
        ATSS(),
        dataclasses.replace(preds, grid=None, input_size=SIZE),
        make_targets([(0, 0, 30, 30)]),
        r"expected the grid of a dense head",
    )
    with pytest.raises(ConfigError, match=r"topk of at least 1 and prior_scale above 0, got 0 and 8"):
        ATSS(topk=0)


def test_prepare_counts_on_the_host_and_is_idempotent():
    targets = random_targets(generator(0), (3, 1))
    grid = grid_for_image(SIZE, STRIDES)

    prepared = prepare(ATSS(), targets, grid)

    assert prepared.objects is not None
    assert prepare(ATSS(), prepared, grid) is prepared
