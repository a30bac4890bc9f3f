# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import numpy as np
import pytest
import torch
from tests.losses.scenes import generator, make_targets, random_targets

from boxwright.errors import ShapeError
from boxwright.losses.layout.candidates import RUN_CELLS, lay_out_candidates
from boxwright.ops.grid import grid_for_image
from boxwright.structures import Candidates, Targets

GRID = grid_for_image((64, 96), (8, 16, 32))


def expand(candidates: Candidates) -> list[tuple[int, int]]:
    """(object, image * A + anchor) of every pair, in order."""
    cells = [
        cell
        for first, length in zip(candidates.run_first.tolist(), candidates.run_length.tolist(), strict=True)
        for cell in range(first, first + length)
    ]
    owners = np.repeat(candidates.objects.numpy(), candidates.object_cells.numpy()).tolist()
    return list(zip(owners, cells, strict=True))


def by_loop(targets: Targets) -> list[tuple[int, int]]:
    anchors, pairs = len(GRID.points), []
    for image, slot in np.argwhere(targets.valid.numpy()).tolist():
        x1, y1, x2, y2 = targets.boxes[image, slot].tolist()
        for anchor, (x, y) in enumerate(GRID.points.tolist()):
            if min(x - x1, y - y1, x2 - x, y2 - y) > 1e-9:
                pairs.append((image * targets.labels.shape[1] + slot, image * anchors + anchor))
    return pairs


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", range(5))
def test_pairs_and_their_order_equal_a_loop(seed, dtype):
    targets = random_targets(generator(seed), (4, 0, 9), (64, 96), dtype)

    candidates = lay_out_candidates(targets, GRID)

    assert expand(candidates) == by_loop(targets)
    assert candidates.count == len(by_loop(targets)) == sum(candidates.object_cells.tolist())
    assert sum(candidates.cells, ()) == tuple(candidates.object_cells.tolist())
    assert sum(candidates.runs) == len(candidates.run_first)


def test_a_centre_on_the_border_is_outside():
    # Cell centres of stride 8 lie at 4, 12, 20, ...
    targets = make_targets([(4, 4, 20, 20)])

    assert expand(lay_out_candidates(targets, grid_for_image((32, 32), (8,)))) == [(0, 5)]


@pytest.mark.parametrize(("shift", "inside"), [(5e-10, 0), (2e-9, 1)])
def test_the_border_is_a_billionth_of_a_pixel_wide(shift, inside):
    targets = make_targets([(4 - shift, 3, 8, 8)])

    assert lay_out_candidates(targets, grid_for_image((32, 32), (8,))).count == inside


@pytest.mark.parametrize(
    "box", [(10, 10, 10, 40), (10, 10, 40, 10), (40, 40, 10, 10), (5, 5, 7, 7), (-50, -50, -1, -1), (97, 0, 200, 64)]
)
def test_boxes_without_a_cell_are_left_out(box):
    candidates = lay_out_candidates(make_targets([box]), GRID)

    assert candidates.count == 0
    assert len(candidates.objects) == len(candidates.run_first) == 0


def test_a_box_over_the_border_holds_the_cells_inside_the_image():
    assert lay_out_candidates(make_targets([(-1e4, -1e4, 1e4, 1e4)]), GRID).count == len(GRID.points)


def test_unused_slots_count_for_nothing_whatever_they_hold():
    targets = make_targets([(0, 0, 64, 64)], slots=2)
    targets.boxes[0, 1] = torch.nan
    targets.labels[0, 1] = -5

    candidates = lay_out_candidates(targets, GRID)

    assert candidates.objects.tolist() == [0]
    assert candidates.labels_below == 1


@pytest.mark.parametrize("targets", [make_targets([], []), make_targets([], [], slots=3)])
def test_nothing_is_special_when_there_are_no_objects(targets):
    candidates = lay_out_candidates(targets, GRID)

    assert (candidates.count, candidates.cells, candidates.runs, candidates.labels_below) == (0, ((), ()), (0, 0), 0)


def test_errors_name_image_and_slot():
    negative, broken = make_targets([], [(0, 0, 9, 9)], labels=[[], [-1]]), make_targets([(0, 0, 9, float("inf"))])

    with pytest.raises(
        ShapeError, match=r"Targets.labels: expected class indices of at least 0, got -1 at image 1, slot 0"
    ):
        lay_out_candidates(negative, GRID)
    with pytest.raises(ShapeError, match=r"Targets.boxes: expected finite pixels, got .*inf.* at image 0, slot 0"):
        lay_out_candidates(broken, GRID)


def test_moving_to_a_device_keeps_the_host_counts():
    candidates = lay_out_candidates(make_targets([(0, 0, 64, 64)]), GRID)

    moved = candidates.to("meta")

    assert moved.run_first.device.type == "meta"
    assert moved.count == candidates.count


def test_runs_are_short_stay_in_a_row_and_are_counted_by_object():
    targets = random_targets(generator(3), (4, 0, 9), (64, 96), torch.float32)

    laid_out = lay_out_candidates(targets, GRID)

    assert laid_out.run_length.min() >= 1
    assert laid_out.run_length.max() == RUN_CELLS  # the scene has boxes wider than four cells
    assert int(laid_out.object_runs.sum()) == len(laid_out.run_length)
    assert [sum(counts) for counts in laid_out.runs_of] == list(laid_out.runs)
    assert laid_out.object_runs.tolist() == [count for image in laid_out.runs_of for count in image]
    of_run = np.split(laid_out.run_length.numpy(), np.cumsum(laid_out.object_runs.numpy())[:-1])
    assert [int(lengths.sum()) for lengths in of_run] == laid_out.object_cells.tolist()
    rows = GRID.points[:, 1].repeat(3)
    ends = laid_out.run_first + laid_out.run_length - 1
    assert torch.equal(rows[laid_out.run_first], rows[ends])
