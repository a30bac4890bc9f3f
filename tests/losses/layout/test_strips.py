# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Cells inside oriented boxes, and the rules beside containment, against loops over every cell."""

import math

import numpy as np
import pytest
import torch
from tests.losses.layout.test_candidates import expand
from tests.losses.scenes import generator, make_targets, random_targets
from tests.reference.task_aligned import _inside, _widened

from boxwright.errors import ShapeError
from boxwright.losses.layout.candidates import LayoutRules, check_candidates, lay_out_candidates
from boxwright.ops.grid import grid_for_image, make_grid
from boxwright.structures import Grid, Targets

GRID = grid_for_image((64, 96), (8, 16, 32))


def oriented_targets(*images: list[tuple[float, ...]], dtype: torch.dtype = torch.float64) -> Targets:
    slots = max(map(len, images))
    boxes = torch.zeros(len(images), slots, 5, dtype=dtype)
    valid = torch.zeros(len(images), slots, dtype=torch.bool)
    for image, rows in enumerate(images):
        for slot, row in enumerate(rows):
            boxes[image, slot], valid[image, slot] = torch.tensor(row, dtype=dtype), True
    return Targets(torch.zeros(len(images), slots, dtype=torch.int64), boxes, valid)


def random_oriented(seed: int, counts: tuple[int, ...]) -> Targets:
    source = np.random.default_rng(seed)
    rows = [
        (source.uniform(-5, 100), source.uniform(-5, 70), *source.uniform(0.5, 70, 2), source.uniform(-7, 7))
        for _ in range(sum(counts))
    ]
    ends = np.cumsum(counts)
    return oriented_targets(*(rows[end - count : end] for end, count in zip(ends, counts, strict=True)))


def by_loop(targets: Targets, grid: Grid = GRID, min_side: float = 0.0) -> list[tuple[int, int]]:
    anchors, pairs = len(grid.points), []
    for image, slot in np.argwhere(targets.valid.numpy()).tolist():
        box = _widened(targets.boxes[image, slot].tolist(), min_side)
        for anchor, point in enumerate(grid.points.tolist()):
            if _inside(point, box):
                pairs.append((image * targets.labels.shape[1] + slot, image * anchors + anchor))
    return pairs


@pytest.mark.parametrize("min_side", [0.0, 16.0])
@pytest.mark.parametrize("seed", range(8))
def test_oriented_pairs_and_their_order_equal_a_loop(seed, min_side):
    targets = random_oriented(seed, (4, 0, 9))

    candidates = lay_out_candidates(targets, GRID, LayoutRules(min_side=min_side))

    assert expand(candidates) == by_loop(targets, min_side=min_side)
    assert candidates.count == len(expand(candidates)) == sum(candidates.object_cells.tolist())
    assert candidates.run_length.max() <= 4


# Multiples of a quarter turn, where sines are 0 or almost: corners of the box fall on cell centres at 4, 12, 20, ...
@pytest.mark.parametrize("quarters", range(-4, 5))
@pytest.mark.parametrize("sides", [(16.0, 32.0), (8.0, 8.0), (48.0, 16.0)])
def test_centres_on_the_border_of_an_oriented_box_are_as_the_definition_rounds_them(quarters, sides):
    for cx, cy in ((20.0, 20.0), (24.0, 28.0), (20.5, 44.0)):
        targets = oriented_targets([(cx, cy, *sides, quarters * math.pi / 2)])

        assert expand(lay_out_candidates(targets, GRID)) == by_loop(targets)


def test_a_centre_on_the_border_of_an_oriented_box_is_inside():
    # Cell centres of stride 8 lie at 4, 12, 20, ...: three by three of them from 4 to 20.
    targets = oriented_targets([(12, 12, 16, 16, 0.0)])

    assert lay_out_candidates(targets, grid_for_image((32, 32), (8,))).count == 9


@pytest.mark.parametrize("angle", [math.pi / 4, math.pi / 4 + 1e-15, 3 * math.pi / 4])
def test_a_diamond_touches_centres_with_its_corners(angle):
    side = 16 * math.sqrt(2)
    targets = oriented_targets([(20, 20, side, side, angle)])

    assert expand(lay_out_candidates(targets, GRID)) == by_loop(targets)


def test_an_oriented_box_without_area_holds_nothing_unless_asked():
    targets = oriented_targets([(20, 20, 0, 30, 0.0), (20, 20, 30, 0, 0.0)])

    assert lay_out_candidates(targets, GRID).count == 0
    assert expand(lay_out_candidates(targets, GRID, LayoutRules(flat_objects=True))) == by_loop(targets)


@pytest.mark.parametrize("seed", range(4))
def test_widened_axis_aligned_boxes_equal_a_loop(seed):
    targets = random_targets(generator(seed), (9, 3), (64, 96))

    assert expand(lay_out_candidates(targets, GRID, LayoutRules(min_side=16.0))) == by_loop(targets, min_side=16.0)


def test_a_widened_box_without_area_counts_only_where_validity_ignores_area():
    targets = make_targets([(20, 20, 20, 40)])

    assert lay_out_candidates(targets, GRID, LayoutRules(min_side=16.0)).count == 0
    flat = LayoutRules(min_side=16.0, flat_objects=True)
    assert expand(lay_out_candidates(targets, GRID, flat)) == by_loop(targets, min_side=16.0)


@pytest.mark.parametrize(("side", "kept"), [(1.999, False), (2.0, True), (2.001, True)])
@pytest.mark.parametrize("axis", [2, 3])
def test_the_size_filter_keeps_two_pixels_and_more(axis, side, kept):
    box = [20.0, 20.0, 30.0, 30.0, 0.0]
    box[axis] = side

    laid_out = lay_out_candidates(oriented_targets([tuple(box)]), GRID, LayoutRules(smallest_side=2.0))

    assert (laid_out.count > 0) == kept


@pytest.mark.parametrize(("width", "height", "kept"), [(2.9, 30.0, False), (3.0, 30.0, True), (30.0, 1.4, True)])
def test_the_swapped_size_filter_measures_in_the_other_side_of_the_image(width, height, kept):
    # 64 x 96: 3 px of width are 3 / 96 * 64 = 2, and 1.4 px of height are 2.1.
    targets = oriented_targets([(20, 20, width, height, 0.1)])

    laid_out = lay_out_candidates(targets, GRID, LayoutRules(smallest_side=2.0, swapped_sides=True))

    assert (laid_out.count > 0) == kept


@pytest.mark.parametrize("seed", range(4))
def test_levels_take_objects_of_their_size(seed):
    targets = random_targets(generator(seed), (12,), (64, 96))
    low, high = 1.5, 3.0

    pairs = expand(lay_out_candidates(targets, GRID, LayoutRules(level_range=(low, high))))

    expected = []
    for slot in range(12):
        held = [pair for pair in by_loop(targets) if pair[0] == slot]
        x1, y1, x2, y2 = targets.boxes[0, slot].tolist()
        size = math.sqrt((x2 - x1) * (y2 - y1))
        fits = [
            (level == 0 or size >= low * stride) and (level == 2 or size <= high * stride)
            for level, stride in enumerate((8, 16, 32))
        ]
        on_level = [pair for pair in held if fits[GRID.level[pair[1]]]]
        expected += on_level or held
    assert pairs == expected
    assert len(pairs) < len(by_loop(targets))


def test_a_range_that_would_leave_an_object_without_cells_is_skipped():
    # 4 px wide: only the finest level is in range, but the only centre inside is of stride 16, at (24, 24).
    targets = make_targets([(22, 22, 26, 26)])

    assert expand(lay_out_candidates(targets, GRID, LayoutRules(level_range=(2.0, 12.0)))) == by_loop(targets)


def test_a_single_level_takes_every_size():
    grid = grid_for_image((64, 64), (8,))
    targets = make_targets([(0, 0, 9, 9), (0, 0, 64, 64)])

    assert lay_out_candidates(targets, grid, LayoutRules(level_range=(2.0, 3.0))).count == 1 + 64


def test_a_layout_by_other_rules_is_refused():
    targets = make_targets([(0, 0, 30, 30)])
    candidates = lay_out_candidates(targets, GRID, LayoutRules(min_side=16.0))

    check_candidates(candidates, targets, GRID, 3, LayoutRules(min_side=16.0))
    with pytest.raises(ShapeError, match=r"Targets.candidates: expected a layout with .*min_side=0.0.*min_side=16.0"):
        check_candidates(candidates, targets, GRID, 3)


def test_a_layout_of_the_other_kind_of_boxes_is_refused():
    targets = oriented_targets([(20, 20, 30, 30, 0.0)])
    upright = make_targets([(5, 5, 35, 35)])

    with pytest.raises(ShapeError, match=r"oriented=True, got one with .*oriented=False"):
        check_candidates(lay_out_candidates(upright, GRID), targets, GRID, 3)


def test_priors_are_refused():
    grid = make_grid([(4, 4)], [8], priors=[[(10.0, 10.0)]])

    with pytest.raises(ShapeError, match="expected a grid with one candidate for each cell, got one with priors"):
        lay_out_candidates(make_targets([(0, 0, 30, 30)]), grid)


def test_rules_move_with_the_layout():
    rules = LayoutRules(min_side=16.0, level_range=(2.0, 12.0), smallest_side=2.0)

    assert LayoutRules.of(lay_out_candidates(make_targets([(0, 0, 30, 30)]), GRID, rules).to("cpu")) == rules
