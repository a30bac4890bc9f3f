# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import numpy as np
import pytest

from boxwright.loading.augment.randaugment import OPERATIONS, rand_augment


def photo(seed=0, height=40, width=50):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_the_operations_are_the_papers_fourteen():
    assert len(OPERATIONS) == 14


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_keep_shape_type_and_their_argument(name):
    image = photo()
    before = image.copy()
    image.setflags(write=False)

    for strength in (-1.0, -0.3, 0.0, 0.3, 1.0):
        result = OPERATIONS[name](image, strength)
        assert result.shape == image.shape
        assert result.dtype == np.uint8
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("name", sorted(set(OPERATIONS) - {"autocontrast", "equalize"}))
def test_no_strength_changes_nothing(name):
    np.testing.assert_array_equal(OPERATIONS[name](photo(), 0.0), photo())


def test_values_by_hand():
    image = np.array([[[0, 100, 200]]], np.uint8).repeat(2, 1)

    assert OPERATIONS["solarize"](image, 0.5)[0, 0].tolist() == [0, 100, 55]  # inverted from 128 on
    assert OPERATIONS["posterize"](image, 1.0)[0, 0].tolist() == [0, 96, 192]  # four bits left
    assert OPERATIONS["brightness"](image, 0.5)[0, 0].tolist() == [0, 145, 255]  # times 1.45
    assert OPERATIONS["brightness"](image, -1.0)[0, 0].tolist() == [0, 10, 20]


def test_geometry_by_hand():
    dot = np.zeros((33, 33, 3), np.uint8)
    dot[16, 26] = 255

    shifted = OPERATIONS["translate_x"](dot, -331 / 150 * 8 / 33)
    sheared = OPERATIONS["shear_y"](dot, 2 / 3)  # 0.2 down for each px to the right
    turned = OPERATIONS["rotate"](dot, 1.0)

    assert np.argwhere(shifted[..., 0] == 255).tolist() == [[16, 18]]
    assert np.argwhere(sheared[..., 0] > 200).tolist() == [[18, 26]]
    # 10 px from the centre, turned by 30 degrees: 8.66 across and 5 up.
    middle = turned[4:29, 4:29, 0]  # without the corners that were outside
    bright = np.argwhere(middle > 60) + 4
    assert np.abs(bright.mean(0) - (16 - 5, 16 + 8.66)).max() < 0.5


def test_two_changes_at_random():
    results = [rand_augment(photo(), np.random.default_rng(seed)) for seed in range(60)]

    assert len({result.tobytes() for result in results}) > 40
    np.testing.assert_array_equal(results[7], rand_augment(photo(), np.random.default_rng(7)))
