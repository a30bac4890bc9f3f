# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from boxwright.errors import ShapeError
from boxwright.ops.kept_grid import grid_like, image_grid

PRIORS = (((10.0, 13.0), (16.0, 30.0)),)


def test_the_same_place_gives_the_same_grid():
    like = torch.zeros(1)

    one = grid_like(like, ((2, 3),), (16,), PRIORS, 1, 3)

    assert grid_like(torch.ones(4), ((2, 3),), (16,), PRIORS, 1, 3) is one
    assert grid_like(like, ((2, 3),), (16,), PRIORS, 2, 3) is not one
    assert (one.prior_first, one.first_level, one.total_levels) == (True, 1, 3)
    assert one.prior_wh.tolist() == [[10, 13]] * 6 + [[16, 30]] * 6


def test_without_priors_there_is_one_candidate_per_cell():
    grid = grid_like(torch.zeros(1), ((1, 2),), (8,))

    assert grid.prior_wh is None
    assert grid.points.tolist() == [[4, 4], [12, 4]]


def test_fake_tensors_get_fake_grids_and_leave_none_behind():
    with FakeTensorMode():
        fake = grid_like(torch.zeros(1), ((5, 7),), (8,))

    assert isinstance(fake.points, FakeTensor)
    assert type(grid_like(torch.zeros(1), ((5, 7),), (8,)).points) is torch.Tensor


def test_a_grid_made_while_inferring_serves_training():
    with torch.inference_mode():
        image_grid((24, 40), (8,), torch.device("cpu"))
        grid_like(torch.zeros(1), ((3, 11),), (8,))

    assert not image_grid((24, 40), (8,), torch.device("cpu")).points.is_inference()
    assert not grid_like(torch.zeros(1), ((3, 11),), (8,)).points.is_inference()


def test_sides_that_are_no_multiples():
    with pytest.raises(ShapeError, match="divisible by the stride 16"):
        image_grid((32, 40), (8, 16), torch.device("cpu"))
