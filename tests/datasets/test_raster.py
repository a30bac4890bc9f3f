# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import numpy as np
import pytest

from boxwright.datasets.raster import outline_pixels


def filled(outline, size, cell=1.0):
    result = np.zeros(size, np.bool_)
    patch = outline_pixels([np.array(part, np.float64) for part in outline], size, cell)
    result[patch.window] = patch.pixels
    return result


def slowly(points, size):
    """Ray casting, one pixel centre after the other."""
    result = np.zeros(size, np.bool_)
    for row in range(size[0]):
        for column in range(size[1]):
            x, y, inside = column + 0.5, row + 0.5, False
            for (x1, y1), (x2, y2) in zip(points, [*points[1:], points[0]], strict=True):
                if (y1 <= y) != (y2 <= y) and x >= x1 + (y - y1) / (y2 - y1) * (x2 - x1):
                    inside = not inside
            result[row, column] = inside
    return result


@pytest.mark.parametrize("seed", range(8))
def test_pixels_are_those_whose_centre_is_inside(seed):
    points = (np.random.default_rng(seed).random((7, 2)) * 40 - 8).tolist()  # crosses itself and leaves the grid

    np.testing.assert_array_equal(filled([points], (24, 30)), slowly(points, (24, 30)))


def test_parts_add_up_and_holes_stay_open():
    square, other = [(0, 0), (6, 0), (6, 6), (0, 6)], [(4, 4), (9, 4), (9, 9), (4, 9)]
    bridged = [(0, 0), (6, 0), (6, 6), (0, 6), (0, 0), (2, 2), (2, 4), (4, 4), (4, 2), (2, 2)]

    assert filled([square, other], (10, 10)).sum() == 36 + 25 - 4
    hole = filled([bridged], (10, 10))
    assert hole.sum() == 36 - 4
    assert not hole[2:4, 2:4].any()


def test_cells_are_larger_pixels():
    assert np.argwhere(filled([[(4, 8), (12, 8), (12, 12), (4, 12)]], (4, 4), 4)).tolist() == [[2, 1], [2, 2]]


def test_outlines_outside_or_without_area_have_no_pixels():
    assert not filled([[(-5, -5), (-1, -5), (-1, -1)]], (8, 8)).any()
    assert not filled([[(1, 1), (5, 5)]], (8, 8)).any()
    assert not filled([], (8, 8)).any()
