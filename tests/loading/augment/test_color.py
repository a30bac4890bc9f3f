# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import cv2
import numpy as np

from boxwright.loading.augment.color import hsv_tables, jitter_hsv


def test_tables_hold_hand_computed_values():
    table = hsv_tables(0.1, 1.5, 0.5)

    assert table[0, [0, 100, 170, 179]].tolist() == [18, 118, 8, 17]  # (x + 18) mod 180
    assert table[1, [0, 1, 100, 171]].tolist() == [0, 1, 150, 255]
    assert table[2, [0, 1, 100, 255]].tolist() == [0, 0, 50, 127]
    assert hsv_tables(-0.1, 1.0, 1.0)[0, [0, 18, 20]].tolist() == [162, 0, 2]


def test_jitter_applies_the_tables_to_every_pixel():
    image = np.random.default_rng(0).integers(0, 256, (150, 37, 3), dtype=np.uint8)
    before = image.copy()

    result = jitter_hsv(image, np.random.default_rng(5), 0.1, 0.7, 0.4)

    u = np.random.default_rng(5).uniform(-1, 1, 3)
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV).astype(np.float64)
    hsv[..., 0] = (hsv[..., 0] + u[0] * 0.1 * 180) % 180
    hsv[..., 1:] = (hsv[..., 1:] * (1 + u[1:] * (0.7, 0.4))).clip(0, 255)
    expected = cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB)
    np.testing.assert_array_equal(result, expected)
    np.testing.assert_array_equal(image, before)


def test_grey_keeps_its_colour():
    grey = np.full((4, 4, 3), 100, np.uint8)

    result = jitter_hsv(grey, np.random.default_rng(1), 0.5, 1.0, 0.0)

    np.testing.assert_array_equal(result, grey)


def test_no_ranges_change_nothing_but_draw_as_many_numbers():
    image = np.random.default_rng(0).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    rng, other = np.random.default_rng(2), np.random.default_rng(2)

    assert jitter_hsv(image, rng, 0.0, 0.0, 0.0) is image
    jitter_hsv(image, other, 0.1, 0.1, 0.1)
    assert rng.random() == other.random()
