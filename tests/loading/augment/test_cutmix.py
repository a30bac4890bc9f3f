# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import numpy as np

from boxwright.datasets.sample import Instances
from boxwright.loading.augment.cutmix import draw_areas, paste_area
from boxwright.loading.augment.geometry import Picture


def picture(boxes, colour):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1).astype(np.float64)
    return Picture(np.full((100, 100, 3), colour, np.uint8), Instances(boxes, np.arange(len(boxes))), areas)


def test_the_first_free_area_shows_the_other_picture_and_its_objects():
    first = picture([[0, 0, 30, 30]], 10)
    # In the area: a tenth of the first, all of the second, a twentieth of the third.
    other = picture([[41, 50, 51, 60], [60, 60, 70, 70], [40, 80, 60, 81]], 20)

    mixed = paste_area(first, other, ((20, 20, 50, 50), (50, 40, 59, 90), (50, 40, 90, 90)))

    assert (mixed.image[40:90, 50:59] == 20).all()
    assert (mixed.image == 20).sum() == 50 * 9 * 3
    assert mixed.objects.boxes.tolist() == [[0, 0, 30, 30], [50, 50, 51, 60], [50, 80, 59, 81]]
    assert mixed.areas.tolist() == [900, 10, 9]
    assert (first.image == 10).all()


def test_without_a_free_area_nothing_changes():
    first = picture([[0, 0, 100, 100]], 10)

    assert paste_area(first, picture([], 20), ((5, 5, 10, 10), (50, 50, 50, 60), (20, 20, 90, 90))) is first
    assert paste_area(picture([], 1), picture([], 20), ((50, 50, 50, 60),)).image.max() == 1


def test_areas_are_a_uniform_share_before_the_cut():
    rng = np.random.default_rng(0)
    areas = np.array([draw_areas(rng, (1000, 1000)) for _ in range(1500)]).reshape(-1, 4)
    inside = areas[(areas[:, 0] > 0) & (areas[:, 1] > 0) & (areas[:, 2] < 1000) & (areas[:, 3] < 1000)]

    assert areas.min() >= 0
    assert areas.max() <= 1000
    # Small ones stay inside more often: P(side = s | inside) ~ 2 s (1 - s)^2, mean side 1/2 - 1/10 = 0.4.
    sides = (inside[:, 2] - inside[:, 0]) / 1000
    assert abs(sides.mean() - 0.4) < 4 * 0.2 / len(inside) ** 0.5
