# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Copy-paste: objects with an outline appear a second time, cut out along it."""

from dataclasses import replace

import numpy as np

from boxwright.datasets.instances import mirror
from boxwright.datasets.raster import outline_pixels
from boxwright.datasets.sample import Instances, join_instances
from boxwright.loading.augment.geometry import Picture

MAX_COVERED = 0.30  # share of any object's box that a pasted one may cover


def mirrored_picture(picture: Picture, order: tuple[int, ...] | None) -> Picture:
    """The picture seen in a mirror; `order` is the index of each keypoint there."""
    size = picture.image.shape[0], picture.image.shape[1]
    objects = mirror(picture.objects, size, upside_down=False, mirrored=True, order=order)
    return Picture(picture.image[:, ::-1], objects, picture.areas)


def paste_objects(picture: Picture, other: Picture, share: float) -> Picture:
    """The picture with objects of another one of its size pasted over it.

    Of the objects that have an outline and cover less than `MAX_COVERED` of every box that is there, the first
    round(share * n) by increasing overlap are taken, n being the number of objects of `other`. What they hide keeps its
    labels.

    Source: Simple copy-paste, Ghiasi et al. 2021, arXiv:2012.07177; the choice of objects: spec/recipe 6.
    Deviation: pasted after the affine transform and not before it, because no canvas is drawn before.
    """
    chosen = _choose(picture.objects, other.objects, share)
    if not len(chosen):
        return picture
    pasted = other.objects.take(chosen)
    image = picture.image.copy()
    size = image.shape[0], image.shape[1]
    for outline in pasted.polygons or ():
        patch = outline_pixels(outline, size)
        image[patch.window][patch.pixels] = other.image[patch.window][patch.pixels]
    return Picture(
        image,
        # Ignore regions of the other picture belong to pixels that were not copied.
        join_instances((picture.objects, _without_regions(pasted))),
        np.concatenate((picture.areas, other.areas[chosen])),
    )


def _choose(there: Instances, other: Instances, share: float) -> np.ndarray:
    if other.polygons is None or not len(other):
        return np.zeros(0, np.int64)
    covered = covered_share(there.boxes, other.boxes).max(axis=0, initial=0)
    outlined = np.array([bool(outline) for outline in other.polygons])
    candidates = np.flatnonzero(outlined & (covered < MAX_COVERED))
    ordered = candidates[np.argsort(covered[candidates], kind="stable")]
    return ordered[: round(share * len(other))]


def covered_share(boxes: np.ndarray, over: np.ndarray) -> np.ndarray:
    """Share of each box's area that each box of `over` covers, (n, m).

    >>> covered_share(np.array([[0, 0, 10, 10.0]]), np.array([[5, 0, 20, 5.0]])).tolist()
    [[0.25]]
    """
    boxes, over = boxes.astype(np.float64), over.astype(np.float64)
    low, high = np.maximum(boxes[:, None, :2], over[None, :, :2]), np.minimum(boxes[:, None, 2:], over[None, :, 2:])
    common = (high - low).clip(0).prod(axis=-1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=-1)
    return np.asarray(common / np.maximum(areas, np.finfo(np.float64).tiny)[:, None])


def _without_regions(objects: Instances) -> Instances:
    return replace(objects, ignore=None, ignore_labels=None, ignore_outlines=None)
