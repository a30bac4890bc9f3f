# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Boxes of one image that overlap almost wholly, found without comparing all with all. Imports no torch."""

from typing import NamedTuple

import numpy as np

from boxwright.auditor.labels import SplitLabels

OVERLAP = 0.9  # above it two boxes mean the same thing
CORNERS_APART = 0.15  # of an object's size; farther apart, two oriented objects only share their enclosing box


class Pairs(NamedTuple):
    """Rows of a split's columns, P pairs."""

    first: np.ndarray
    second: np.ndarray
    overlap: np.ndarray


def close_pairs(labels: SplitLabels, overlap: float = OVERLAP) -> Pairs:
    """Pairs of boxes of one image with a larger IoU; of oriented objects also with corners in nearly the same places.

    Boxes stand in the order of their left sides. Two that overlap by more than t have left sides at most (1 - t)
    widths of the left one apart, so each is compared with its next few only.
    """
    box = labels.boxes
    order = np.lexsort((box[:, 0], labels.image))
    x1, y1, x2, y2 = box[order].T
    image, area = labels.image[order], (x2 - x1) * (y2 - y1)
    reach = x1 + (1 - overlap) * (x2 - x1)
    first: list[np.ndarray] = []
    second: list[np.ndarray] = []
    found: list[np.ndarray] = []
    active, step = np.arange(len(order)), 0
    while len(active):
        step += 1
        active = active[active + step < len(order)]
        other = active + step
        near = (image[active] == image[other]) & (x1[other] <= reach[active])
        active, other = active[near], other[near]
        width = np.minimum(x2[active], x2[other]) - x1[other]
        height = np.minimum(y2[active], y2[other]) - np.maximum(y1[active], y1[other])
        shared = np.maximum(width, 0) * np.maximum(height, 0)
        iou = shared / np.maximum(area[active] + area[other] - shared, 1e-12)
        same = iou > overlap
        first.append(order[active[same]])
        second.append(order[other[same]])
        found.append(iou[same])
    empty = np.zeros(0, np.int64)
    overlaps = np.concatenate([np.zeros(0), *found])
    pairs = Pairs(np.concatenate([empty, *first]), np.concatenate([empty, *second]), overlaps)
    pairs = _sorted(pairs)
    return pairs if labels.corners is None else _same_corners(labels, pairs)


def _sorted(pairs: Pairs) -> Pairs:
    low, high = np.minimum(pairs.first, pairs.second), np.maximum(pairs.first, pairs.second)
    order = np.lexsort((high, low))
    return Pairs(low[order], high[order], pairs.overlap[order])


def _same_corners(labels: SplitLabels, pairs: Pairs) -> Pairs:
    assert labels.corners is not None
    one, other = labels.corners[pairs.first], labels.corners[pairs.second]
    turns = [np.roll(way, turn, axis=1) for way in (other, other[:, ::-1]) for turn in range(4)]
    apart = np.min([np.hypot(*np.moveaxis(one - turned, -1, 0)).mean(axis=1) for turned in turns], axis=0)
    kept = apart < CORNERS_APART * np.sqrt(labels.wh[pairs.first].prod(axis=1))
    return Pairs(pairs.first[kept], pairs.second[kept], pairs.overlap[kept])
