# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Oriented boxes as labels have them: four corners, or an outline that a rectangle is fitted to.

Source: spec/datasets 1 and 5, cases 35 and 36.
"""

import numpy as np

from boxwright.datasets import codes
from boxwright.datasets.formats.collect import EntryError
from boxwright.datasets.formats.objects import Remark
from boxwright.datasets.formats.shapes import (
    MIN_INSIDE,
    convex_hull,
    crosses_itself,
    flaw,
    polygon_area,
    share_inside,
    smallest_rectangle,
)

_NOT_RECTANGLE = 0.1  # relative difference between the area of four corners and of the rectangle around them


def oriented_corners(points: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, list[Remark]]:
    """Four corners in order around the object, px as given, and what there is to say about them.

    Other numbers of points become the rectangle of least area around them. Corners may leave the image of `size`
    (height, width) as long as enough of the object lies inside.

    Raises:
        EntryError: fewer than three different points, no area, or mostly outside the image.
    """
    if (found := flaw(points)) is not None:
        raise EntryError(*found)
    remarks: list[Remark] = []
    corners = smallest_rectangle(points) if len(points) != 4 else points
    if len(points) == 4:
        if crosses_itself(points):
            hull = convex_hull(points)
            corners = hull if len(hull) == 4 else points
            message = "the corners are not in order around the object"
            remarks.append(Remark(codes.CORNERS_CROSSED, message, "reordered", "note"))
        whole = polygon_area(smallest_rectangle(corners))
        if polygon_area(corners) < (1 - _NOT_RECTANGLE) * whole:
            message = (
                f"the corners cover {polygon_area(corners) / whole * 100:.0f} % of the smallest rectangle around "
                "them; that rectangle is the object"
            )
            remarks.append(Remark(codes.CORNERS_NOT_RECTANGLE, message))
    inside = share_inside(corners, size)
    if inside < MIN_INSIDE:
        message = f"{inside * 100:.0f} % of the oriented box lies inside the image, at least {MIN_INSIDE * 100:.0f} %"
        raise EntryError(codes.COORD_OUT_OF_RANGE, message + " is needed")
    return corners, remarks
