# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import pytest
import torch

from boxwright.errors import ShapeError
from boxwright.ops.grid import grid_for_image, make_grid


def test_points_go_level_by_level_row_by_row():
    grid = make_grid([(2, 3), (1, 1)], (8, 16))

    assert grid.points.tolist() == [[4, 4], [12, 4], [20, 4], [4, 12], [12, 12], [20, 12], [8, 8]]
    assert grid.strides.tolist() == [8] * 6 + [16]
    assert grid.level.tolist() == [0] * 6 + [1]
    assert grid.image_size == (16, 24)


def test_grid_of_an_image_equals_the_grid_of_its_maps():
    by_image, by_maps = grid_for_image((64, 96), (8, 32)), make_grid([(8, 12), (2, 3)], (8, 32))

    assert by_image.shapes == by_maps.shapes
    assert torch.equal(by_image.points, by_maps.points)


def test_an_image_that_does_not_divide_is_refused_with_the_reason():
    with pytest.raises(ShapeError, match=r"divisible by the stride 16, got 40 x 64; pad the image to a multiple of 32"):
        grid_for_image((40, 64), (8, 16, 32))


@pytest.mark.parametrize(("shapes", "strides"), [([], []), ([(1, 1)], [8, 16])])
def test_levels_and_strides_must_pair_up(shapes, strides):
    with pytest.raises(ShapeError, match="one stride per level"):
        make_grid(shapes, strides)


def test_priors_stand_cell_by_cell_or_one_after_the_other():
    priors = [[(10, 13), (16, 30)], [(5, 6)]]

    by_cell = make_grid([(1, 2), (1, 1)], [8, 16], priors=priors)
    by_prior = make_grid([(1, 2), (1, 1)], [8, 16], priors=priors, prior_first=True)

    assert by_cell.level_sizes == by_prior.level_sizes == (4, 1)
    assert by_cell.points[:, 0].tolist() == [4, 4, 12, 12, 8]
    assert by_prior.points[:, 0].tolist() == [4, 12, 4, 12, 8]
    assert by_cell.prior_wh[:, 0].tolist() == [10, 16, 10, 16, 5]
    assert by_prior.prior_wh[:, 1].tolist() == [13, 13, 30, 30, 6]
    assert by_cell.level_priors == (((10.0, 13.0), (16.0, 30.0)), ((5.0, 6.0),))
    assert by_cell.level.tolist() == [0, 0, 0, 0, 1]
    assert by_cell.strides.tolist() == [8, 8, 8, 8, 16]


def test_without_priors_a_level_has_a_candidate_per_cell():
    assert make_grid([(2, 3), (1, 1)], (8, 16)).level_sizes == (6, 1)


@pytest.mark.parametrize(
    ("priors", "message"),
    [
        ([[(1, 1)]], r"at least one prior for each of 2 levels, got \[1\]"),
        ([[(1, 1)], []], r"at least one prior for each of 2 levels, got \[1, 0\]"),
        ([[(1, 1)], [(0, 4)]], r"positive width and height \(px\), got \(0.0, 4.0\) at level 1"),
    ],
)
def test_wrong_priors_are_refused(priors, message):
    with pytest.raises(ShapeError, match=message):
        make_grid([(1, 2), (1, 1)], [8, 16], priors=priors)
