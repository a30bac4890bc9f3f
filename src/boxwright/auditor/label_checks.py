# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Checks of the labels of a split: doubled, misread, outlying or copied boxes. Imports no torch."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np

from boxwright.auditor.labels import SplitLabels, Spot
from boxwright.auditor.scene import SHOWN, Audited, Hit, counted, image_spots, object_spots, share
from boxwright.datasets import codes
from boxwright.datasets.sample import Split

HUGE = 0.95  # of the image's area
TINY = 3.0  # px of its own image; a shorter side is more often a slip of the mouse than an object
LONG = 20.0  # times as long as wide
CROWD = 300  # objects of one image; detectors keep as many detections by default
FAR = 6.0  # robust standard deviations from the middle of a class
ENOUGH = 50  # objects of a class from which on it has a middle
EDGE = 2.0  # px; an object that comes nearer to its image's border is cut off by it
NARROWEST = 0.15  # natural logarithm; the least standard deviation that outliers are measured by
MISREAD = 0.3  # share of boxes that leave their image
UNSCALED = 0.5  # share of rows outside 0 to 1
POINTS = 0.8  # share of boxes of at most POINT px
POINT = 2.0
SAME_LABELS = 3  # objects; images with fewer have equal labels by chance


def boxes_unscaled(audited: Audited) -> Iterator[Hit]:
    """Rows in pixels where parts of the image are expected, and the other way round."""
    for split, labels in audited.splits.items():
        report = audited.reports.get(split)
        outside = 0 if report is None else sum(p.code == codes.COORD_OUT_OF_RANGE for p in report.problems)
        rows = 0 if report is None else report.rows
        if rows and outside > max(UNSCALED * rows, 2):
            message = f"{share(outside, rows)} of the rows lie outside the image, as if in another unit"
            yield Hit((split,), outside, message)
        points = np.flatnonzero((labels.wh <= POINT).all(axis=1))
        if len(points) > max(POINTS * len(labels), 10):
            message = f"{share(len(points), len(labels))} of the boxes are at most {POINT:g} px wide and high"
            yield Hit((split,), len(points), message, object_spots(labels, points))


def boxes_misread(audited: Audited) -> Iterator[Hit]:
    """Too many boxes that leave their image."""
    for split, report in audited.reports.items():
        leaving = [problem for problem in report.problems if problem.code == codes.BOX_CLIPPED]
        if report.rows >= 10 and len(leaving) > MISREAD * report.rows:
            message = f"{share(len(leaving), report.rows)} of the boxes leave their image"
            yield Hit((split,), len(leaving), message)


def sides_swapped(audited: Audited) -> Iterator[Hit]:
    """Classes that are tall in one split and wide in another."""
    train = audited.splits.get("train")
    if train is None:
        return
    for split, labels in audited.splits.items():
        if split == "train":
            continue
        found = [
            (name, there, here)
            for name, there, here in zip(train.names, _shapes(train), _shapes(labels), strict=True)
            if there * here < 0 and min(abs(there), abs(here)) > np.log(1.5) and abs(there + here) < np.log(1.5)
        ]
        if found:
            words = ", ".join(f"{name} ({np.exp(a):.1f} and {np.exp(b):.1f})" for name, a, b in found[:5])
            message = f"width / height of {counted(len(found), 'class', 'classes')} is turned round: {words}"
            yield Hit(("train", split), len(found), message)


def _shapes(labels: SplitLabels) -> list[float]:
    """Median logarithm of width / height of each class; 0 where objects are few."""
    wh = np.maximum(labels.wh, 1e-9)
    shape = np.log(wh[:, 0] / wh[:, 1])
    return [float(np.median(shape[rows])) if len(rows) >= ENOUGH else 0.0 for rows in by_class(labels)]


def labelled_twice(audited: Audited) -> Iterator[Hit]:
    """Two boxes of one class on the same object."""
    yield from _doubles(audited, same_class=True)


def two_classes(audited: Audited) -> Iterator[Hit]:
    """Two boxes of different classes on the same object."""
    yield from _doubles(audited, same_class=False)


def _doubles(audited: Audited, *, same_class: bool) -> Iterator[Hit]:
    for split, pairs in audited.pairs.items():
        labels = audited.splits[split]
        chosen = (labels.labels[pairs.first] == labels.labels[pairs.second]) == same_class
        first, second, overlap = pairs.first[chosen], pairs.second[chosen], pairs.overlap[chosen]
        if not len(first):
            continue
        order = np.argsort(-overlap, kind="stable")
        again = "again" if same_class else "also"
        texts = [f"{again} {labels.says(int(second[i]))}, overlap {overlap[i]:.2f}" for i in order[:SHOWN]]
        if same_class:
            message = f"{counted(len(first), 'object')} labelled twice"
        else:
            kinds = sorted({tuple(sorted((labels.names[labels.labels[a]], labels.names[labels.labels[b]])))
                            for a, b in zip(first, second, strict=True)})  # fmt: skip
            words = ", ".join(f"{a} and {b}" for a, b in kinds[:5]) + (", ..." if len(kinds) > 5 else "")
            message = f"{counted(len(first), 'object')} labelled with two classes: {words}"
        yield Hit((split,), len(first), message, object_spots(labels, first[order], texts))


def huge(audited: Audited) -> Iterator[Hit]:
    """Boxes that cover the whole image."""
    for split, labels in audited.splits.items():
        sides = labels.relative[:, 2:] - labels.relative[:, :2]
        rows = np.flatnonzero(sides.prod(axis=1) > HUGE)
        if len(rows):
            message = f"{counted(len(rows), 'box', 'boxes')} over more than {100 * HUGE:.0f} % of the image"
            yield Hit((split,), len(rows), message, object_spots(labels, rows))


def tiny(audited: Audited) -> Iterator[Hit]:
    """Boxes of a few pixels."""
    for split, labels in audited.splits.items():
        short = labels.wh.min(axis=1)
        rows = np.flatnonzero(short < TINY)
        rows = rows[np.argsort(short[rows], kind="stable")]
        if len(rows):
            message = f"{counted(len(rows), 'box', 'boxes')} with a side below {TINY:g} px"
            texts = [f"{labels.wh[row][0]:.1f} x {labels.wh[row][1]:.1f} px" for row in rows[:SHOWN]]
            yield Hit((split,), len(rows), message, object_spots(labels, rows, texts))


def long(audited: Audited) -> Iterator[Hit]:
    """Boxes many times as long as wide."""
    for split, labels in audited.splits.items():
        wh = np.maximum(labels.wh, 1e-9)
        ratio = np.maximum(wh[:, 0] / wh[:, 1], wh[:, 1] / wh[:, 0])
        rows = np.flatnonzero(ratio > LONG)
        rows = rows[np.argsort(-ratio[rows], kind="stable")]
        if len(rows):
            message = f"{counted(len(rows), 'box', 'boxes')} more than {LONG:g} times as long as wide"
            yield Hit((split,), len(rows), message, object_spots(labels, rows, [f"{ratio[r]:.0f} : 1" for r in rows]))


def size_outliers(audited: Audited) -> Iterator[Hit]:
    """Objects far larger or smaller than others of their class."""
    for split, labels in audited.splits.items():
        relative = labels.wh / labels.sizes[labels.image][:, ::-1]
        size = np.sqrt(np.maximum(relative.prod(axis=1), 1e-18))
        yield from _outliers(split, labels, size, "size", partial(_size_words, size))


def shape_outliers(audited: Audited) -> Iterator[Hit]:
    """Objects of quite another shape than others of their class."""
    for split, labels in audited.splits.items():
        wh = np.maximum(labels.wh, 1e-9)
        ratio = wh[:, 0] / wh[:, 1]
        yield from _outliers(split, labels, ratio, "shape", partial(_shape_words, ratio))


def _size_words(size: np.ndarray, row: int, middle: float) -> str:
    times = float(size[row]) / middle
    return f"{times:.1f} times the usual side" if times > 1 else f"1 / {1 / times:.1f} of the usual side"


def _shape_words(ratio: np.ndarray, row: int, middle: float) -> str:
    return f"width / height {ratio[row]:.2f}, usually {middle:.2f}"


def _outliers(
    split: Split, labels: SplitLabels, value: np.ndarray, what: str, says: Callable[[int, float], str]
) -> Iterator[Hit]:
    logs, inside = np.log(value), _inside(labels)
    found: list[tuple[float, int, str]] = []
    for members in by_class(labels):
        if len(members) < ENOUGH:
            continue
        middle = float(np.median(logs[members]))
        spread = max(1.4826 * float(np.median(np.abs(logs[members] - middle))), NARROWEST)
        away = np.abs(logs[members] - middle) / spread
        chosen = np.flatnonzero((away > FAR) & inside[members])
        found += [(-away[i], int(members[i]), says(int(members[i]), float(np.exp(middle)))) for i in chosen]
    if found:
        found.sort()
        message = f"{counted(len(found), 'object')} of unusual {what} for the class"
        rows, texts = [row for _, row, _ in found], [text for *_, text in found]
        yield Hit((split,), len(found), message, object_spots(labels, rows, texts))


def _inside(labels: SplitLabels) -> np.ndarray:
    """Objects that the border of their image does not cut off."""
    left = labels.boxes[:, :2] > EDGE
    right = labels.boxes[:, 2:] < labels.sizes[labels.image][:, ::-1] - EDGE
    inside: np.ndarray = (left & right).all(axis=1)
    return inside


def by_class(labels: SplitLabels) -> list[np.ndarray]:
    """Rows of each class."""
    order = np.argsort(labels.labels, kind="stable")
    ends = np.searchsorted(labels.labels[order], np.arange(1, len(labels.names)))
    return np.split(order, ends)


def identical_labels(audited: Audited) -> Iterator[Hit]:
    """Different images with the same label file."""
    for split, labels in audited.splits.items():
        pictures = audited.pictures.get(split)
        groups: dict[bytes, list[int]] = {}
        part = np.round(labels.relative, 5).astype(np.float32)
        starts = np.concatenate(([0], np.cumsum(labels.per_image)))
        for image in np.flatnonzero(labels.per_image >= SAME_LABELS).tolist():
            rows = slice(int(starts[image]), int(starts[image + 1]))
            key = labels.labels[rows].tobytes() + part[rows].tobytes()
            groups.setdefault(key, []).append(image)
        found = [rows for rows in groups.values() if len(rows) > 1]
        if pictures is not None:  # copies of one file are another finding
            found = [rows for rows in found if len({pictures.digest[row] for row in rows}) > 1]
        if found:
            message = f"{counted(len(found), 'set')} of images with the same labels to the last digit"
            yield Hit((split,), len(found), message, group_spots(labels, found))


def group_spots(labels: SplitLabels, groups: Sequence[Sequence[int]]) -> tuple[Spot, ...]:
    """The first image of each group, and the names of the others."""
    texts = []
    for rows in groups[:SHOWN]:
        others = [labels.images[row].name for row in rows[1:4]]
        texts.append("same as " + ", ".join(others) + (", ..." if len(rows) > 4 else ""))
    return image_spots(labels, [rows[0] for rows in groups], texts)


def crowded(audited: Audited) -> Iterator[Hit]:
    """Images with more objects than a detector returns."""
    for split, labels in audited.splits.items():
        per_image = labels.per_image
        rows = np.flatnonzero(per_image > CROWD)
        rows = rows[np.argsort(-per_image[rows], kind="stable")]
        if len(rows):
            message = f"{counted(len(rows), 'image')} with more than {CROWD} objects"
            texts = [f"{per_image[row]} objects" for row in rows[:SHOWN]]
            yield Hit((split,), len(rows), message, image_spots(labels, rows, texts))


def outline_rows(audited: Audited) -> Iterator[Hit]:
    """Outlines in a dataset that is read for boxes."""
    for split, kinds in audited.row_kinds.items():
        if not kinds.outlines:
            continue
        mixed = " among boxes" if kinds.boxes else ""
        message = (
            f"{counted(kinds.outlines, 'row')} of outlines{mixed} in {counted(kinds.files, 'label file')} looked at; "
            "each is read as the box around it"
        )
        spots = tuple(Spot(split, -1, -1, name) for name in kinds.examples)
        yield Hit((split,), kinds.outlines, message, spots, "warning" if kinds.boxes else None)
