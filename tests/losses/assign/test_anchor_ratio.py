# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import dataclasses
import re

import numpy as np
import pytest
import torch
from tests.losses.anchor_scenes import PRIORS, by_level, joined, pyramid, random_maps
from tests.losses.assign.forms import faster, pairs_of, prepare
from tests.losses.scenes import CLASSES, generator, make_targets, random_targets
from tests.reference import anchor_based as reference

from boxwright.errors import ConfigError, ShapeError
from boxwright.losses.assign import AnchorRatio
from boxwright.ops.grid import grid_for_image, make_grid
from boxwright.structures import Assignment, Grid, Targets


def as_lists(targets: Targets) -> list[list[tuple[float, ...] | None]]:
    return [
        [tuple(box.tolist()) if used else None for box, used in zip(boxes, valid, strict=True)]
        for boxes, valid in zip(targets.boxes, targets.valid, strict=True)
    ]


def rows_of(pairs: Assignment, grid: Grid) -> list[list[tuple[int, ...]]]:
    """(image, slot, prior, row, column) of every pair, by level."""
    found: list[list[tuple[int, ...]]] = [[] for _ in grid.shapes]
    first = np.cumsum((0, *grid.level_sizes))
    for image, anchor, slot in zip(pairs.image.tolist(), pairs.anchor.tolist(), pairs.target.tolist(), strict=True):
        level = int(np.searchsorted(first, anchor, side="right")) - 1
        (rows, columns), local = grid.shapes[level], anchor - int(first[level])
        if grid.prior_first:
            prior, cell = divmod(local, rows * columns)
        else:
            cell, prior = divmod(local, len(grid.level_priors[level]))
        found[level].append((image, slot, prior, *divmod(cell, columns)))
    return found


def expected_rows(targets: Targets, grid: Grid, **limits: float) -> list[list[tuple[int, ...]]]:
    parts = zip(grid.level_priors, grid.shapes, grid.level_strides, strict=True)
    return [[row[:5] for row in reference.claims(as_lists(targets), *part, **limits)] for part in parts]


def assign(targets: Targets, grid: Grid, assigner: AnchorRatio | None = None) -> Assignment:
    assigner = assigner or AnchorRatio()
    preds = joined(random_maps(generator(0), len(targets.labels), grid), grid).final
    return pairs_of(assigner, preds, prepare(assigner, targets, grid))


@pytest.mark.parametrize("limits", [{}, {"ratio": 2.0}, {"bias": 0.25}, {"bias": 0.0}, {"ratio": 7.0, "bias": 1.0}])
@pytest.mark.parametrize("prior_first", [True, False])
def test_equals_the_loop_in_its_order(limits, prior_first):
    grid = pyramid(prior_first=prior_first)
    for seed in range(6):
        # Sides in quarters of a pixel: centres fall on borders and halves of cells too.
        targets = random_targets(generator(seed), (6, 0, 9))

        pairs = assign(targets, grid, AnchorRatio(**limits))

        assert rows_of(pairs, grid) == expected_rows(targets, grid, **limits)
        assert pairs.valid.all()


def test_weights_are_means_of_levels():
    grid = pyramid()
    pairs = assign(random_targets(generator(1), (6, 3)), grid)

    level = grid.level[pairs.anchor]

    assert pairs.normalizer.item() == 1
    for index in range(3):
        assert pairs.weight[level == index].sum().item() == pytest.approx(1, rel=1e-12)


def test_single_levels_pick_their_rows():
    grid, targets = pyramid(), random_targets(generator(2), (5, 0, 4))
    maps = random_maps(generator(0), 3, grid)
    whole = pairs_of(AnchorRatio(), joined(maps, grid).final, targets)
    prepared, outputs = prepare(AnchorRatio(), targets, grid), by_level(maps, grid)

    parts = [pairs_of(AnchorRatio(), preds, prepared) for preds in (*outputs.auxiliary, outputs.final)]

    first = [0, *np.cumsum(grid.level_sizes).tolist()[:-1]]
    for name in ("image", "target", "weight"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name))
    assert torch.equal(torch.cat([p.anchor + skip for p, skip in zip(parts, first, strict=True)]), whole.anchor)


def test_levels_that_were_not_prepared_are_laid_out_on_the_spot():
    grid, targets = pyramid(), random_targets(generator(2), (5, 4))
    outputs = by_level(random_maps(generator(0), 2, grid), grid)
    coarsest = prepare(AnchorRatio(), targets, outputs.final.cells)

    for preds in (*outputs.auxiliary, outputs.final):
        prepared, fresh = pairs_of(AnchorRatio(), preds, coarsest), pairs_of(AnchorRatio(), preds, targets)
        assert torch.equal(prepared.anchor, fresh.anchor)


def test_a_centre_on_a_border_claims_five_cells_its_own_twice():
    grid = grid_for_image((32, 32), (8,), priors=[[(8, 8)]], prior_first=True)

    pairs = assign(make_targets([(12, 12, 20, 20)]), grid)  # centre (16, 16): the corner of cell (2, 2)

    assert [row[3:] for row in rows_of(pairs, grid)[0]] == [(2, 2), (2, 1), (1, 2), (2, 2), (2, 2)]


def test_a_centre_in_the_middle_of_a_cell_claims_no_neighbour():
    grid = grid_for_image((32, 32), (8,), priors=[[(8, 8)]], prior_first=True)

    assert rows_of(assign(make_targets([(8, 8, 16, 16)]), grid), grid) == [[(0, 0, 0, 1, 1)]]


@pytest.mark.parametrize("factor", [4.0, 0.25])
def test_the_limit_itself_does_not_fit(factor):
    grid = grid_for_image((64, 64), (8,), priors=[[(8, 8)]], prior_first=True)
    half = 4 * factor

    at = assign(make_targets([(28 - half, 24, 28 + half, 32)]), grid)
    inside = assign(make_targets([(28 - half * 0.999 ** (1 if factor > 1 else -1), 24, 28 + half, 32)]), grid)

    assert (len(at.image), len(inside.image) > 0) == (0, True)


@pytest.mark.parametrize("box", [(10, 10, 10, 30), (10, 10, 30, 10), (10, 10, 10, 10), (30, 10, 10, 30)])
def test_a_box_without_area_claims_nothing(box):
    assert len(assign(make_targets([box]), pyramid()).image) == 0


def test_a_box_outside_is_clamped_to_the_border():
    grid = grid_for_image((32, 32), (8,), priors=[[(8, 8)]], prior_first=True)
    targets = make_targets([(-30, -30, -20, -20), (60, 60, 70, 70), (28, 28, 36, 36)])

    assert rows_of(assign(targets, grid), grid) == expected_rows(targets, grid)
    assert {row[3:] for row in rows_of(assign(targets, grid), grid)[0]} <= {(0, 0), (3, 3), (2, 3), (3, 2)}


def test_more_objects_than_candidates():
    grid = grid_for_image((32, 32), (32,), priors=[[(16, 16)]], prior_first=True)
    targets = make_targets([(4, 4, 20, 20)] * 7)

    pairs = assign(targets, grid)

    assert pairs.anchor.tolist() == [0] * len(pairs.anchor)
    assert pairs.target.tolist()[:7] == list(range(7))


def test_no_objects_are_no_pairs():
    pairs = assign(make_targets([], []), pyramid())

    assert pairs.image.shape == pairs.weight.shape == (0,)
    assert pairs.normalizer.item() == 1


def test_unused_slots_and_padding_claim_nothing():
    targets, grid = random_targets(generator(3), (4, 2)), pyramid()
    grown = Targets(
        torch.nn.functional.pad(targets.labels, (0, 9)),
        torch.nn.functional.pad(targets.boxes, (0, 0, 0, 9), value=20.0),
        torch.nn.functional.pad(targets.valid, (0, 9)),
    )

    assert rows_of(assign(grown, grid), grid) == rows_of(assign(targets, grid), grid)


def test_preparing_twice_changes_nothing():
    targets, grid = random_targets(generator(4), (3,)), pyramid()
    once = prepare(AnchorRatio(), targets, grid)

    assert prepare(AnchorRatio(), once, grid) is once


def test_preparing_a_large_batch_is_quick():
    import time

    grid = grid_for_image((640, 640), (8, 16, 32), priors=PRIORS[:3], prior_first=True)
    corner = torch.rand(16, 200, 2, generator=generator(5)) * 500
    side = torch.rand(16, 200, 2, generator=generator(5)) * 100 + 4
    boxes = torch.cat((corner, corner + side), dim=-1)
    targets = Targets(torch.zeros(16, 200, dtype=torch.int64), boxes, torch.ones(16, 200, dtype=torch.bool))

    start = time.perf_counter()
    matches = prepare(AnchorRatio(), targets, grid).prior_matches

    assert time.perf_counter() - start < 1.0  # some 10 ms; a loop over objects would take seconds
    assert sum(matches.level_rows) > 3000


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"level_strides": (8, 16, 64)}, r"layout for strides .*got \(8, 16, 64\)"),
        ({"prior_first": False}, "layout for prior_first True as in the predictions, got False"),
        ({"slots": 3}, r"layout for \(B, M\) = \(1, 2\), got \(1, 3\).*prepare. again"),
        ({"labels_below": CLASSES + 1}, f"class indices below {CLASSES}.* got {CLASSES}"),
    ],
)
def test_a_layout_for_something_else_is_refused(changes, message):
    grid = pyramid()
    targets = prepare(AnchorRatio(), random_targets(generator(0), (1,)), grid)
    changed = targets.with_prepared(prior_matches=dataclasses.replace(targets.prior_matches, **changes))

    with pytest.raises(ShapeError, match=message):
        faster(AnchorRatio(), joined(random_maps(generator(0), 1, grid), grid).final, changed)


def test_targets_prepared_for_another_image_size_are_refused():
    grid = pyramid()
    targets = prepare(AnchorRatio(), random_targets(generator(0), (1,)), pyramid(size=(64, 64)))

    with pytest.raises(ShapeError, match=r"levels \(rows, columns\).*call .Criterion.prepare"):
        faster(AnchorRatio(), joined(random_maps(generator(0), 1, grid), grid).final, targets)


def test_targets_prepared_with_other_limits_are_refused():
    targets = prepare(AnchorRatio(ratio=2.0), random_targets(generator(0), (1,)), pyramid())

    with pytest.raises(ShapeError, match=re.escape("ratio 4.0 and bias 0.5, got 2.0 and 0.5")):
        prepare(AnchorRatio(), targets, pyramid())


def test_a_grid_without_priors_is_refused():
    with pytest.raises(ShapeError, match="grid with priors"):
        prepare(AnchorRatio(), make_targets([(0, 0, 9, 9)]), make_grid([(4, 4)], [8]))


@pytest.mark.parametrize("wrong", [{"ratio": 1.0}, {"ratio": float("nan")}, {"bias": -0.1}, {"bias": 1.1}])
def test_wrong_limits_are_refused(wrong):
    with pytest.raises(ConfigError, match=f"AnchorRatio.{next(iter(wrong))}"):
        AnchorRatio(**wrong)
