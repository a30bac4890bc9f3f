# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""CutMix: a rectangle of one picture is replaced by the same rectangle of another."""

import numpy as np

from boxwright.datasets.instances import cut
from boxwright.datasets.sample import join_instances
from boxwright.loading.augment.copy_paste import covered_share
from boxwright.loading.augment.geometry import MIN_VISIBLE, MIN_VISIBLE_OUTLINED, Picture

CANDIDATES = 3
Window = tuple[int, int, int, int]  # px xyxy


def draw_areas(rng: np.random.Generator, size: tuple[int, int]) -> tuple[Window, ...]:
    """Candidate rectangles in a picture of `size` (h, w), cut to it.

    Each covers 1 - U(0, 1) of the picture before the cut, about a random centre, with the picture's aspect ratio.
    """
    height, width = size
    areas = []
    for _ in range(CANDIDATES):
        side = np.sqrt(1 - rng.beta(1.0, 1.0))
        half_w, half_h = int(width * side) // 2, int(height * side) // 2
        x, y = int(rng.integers(width)), int(rng.integers(height))
        areas.append((max(x - half_w, 0), max(y - half_h, 0), min(x + half_w, width), min(y + half_h, height)))
    return tuple(areas)


def paste_area(picture: Picture, other: Picture, areas: tuple[Window, ...]) -> Picture:
    """The picture with the first area that touches none of its objects taken from another picture of its size.

    Objects of the other picture come along, cut to the area, where enough of them is inside: 10 % of their box, or 1 %
    with outlines. Without a free area nothing changes.

    Source: CutMix, Yun et al. 2019, arXiv:1905.04899; areas and limits: spec/recipe 6.
    """
    free = [area for area in areas if _is_free(picture, area)]
    if not free:
        return picture
    x1, y1, x2, y2 = area = free[0]
    image = picture.image.copy()
    image[y1:y2, x1:x2] = other.image[y1:y2, x1:x2]
    objects = other.objects
    inside = covered_share(objects.boxes, np.array([area]))[:, 0]
    outlined = objects.polygons is not None or objects.corners is not None
    keep = np.flatnonzero(inside >= (MIN_VISIBLE_OUTLINED if outlined else MIN_VISIBLE))
    taken = cut(objects.take(keep), area)
    sides = taken.boxes[:, 2:].astype(np.float64) - taken.boxes[:, :2]
    return Picture(image, join_instances((picture.objects, taken)), np.concatenate((picture.areas, sides.prod(axis=1))))


def _is_free(picture: Picture, area: Window) -> bool:
    x1, y1, x2, y2 = area
    return x2 > x1 and y2 > y1 and not covered_share(picture.objects.boxes, np.array([area])).any()
