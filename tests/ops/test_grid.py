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
