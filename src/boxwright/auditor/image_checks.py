# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Checks of image files and of what their pixels show. Imports no torch."""

from collections import Counter
from collections.abc import Iterator

import numpy as np

from boxwright.auditor.images import across, joined, near_duplicates, same_bytes
from boxwright.auditor.label_checks import group_spots
from boxwright.auditor.labels import Spot
from boxwright.auditor.scene import SHOWN, Audited, Hit, counted, image_spots, share

FLAT = 2.0  # grey levels; an image with a smaller standard deviation shows nothing
SMALL = 4  # times that an image is enlarged
EXTREME = 3.0  # times as long as wide


def undecodable(audited: Audited) -> Iterator[Hit]:
    """Images whose header is fine and whose pixels are not."""
    for split, pictures in audited.pictures.items():
        if pictures.fault:
            rows = [*pictures.fault]
            message = f"{counted(len(rows), 'image')} that cannot be decoded"
            spots = image_spots(audited.splits[split], rows, [*pictures.fault.values()])
            yield Hit((split,), len(rows), message, spots)


def copies(audited: Audited) -> Iterator[Hit]:
    """Equal files in a split."""
    for split, pictures in audited.pictures.items():
        groups = same_bytes(pictures)
        if groups:
            more = sum(len(rows) - 1 for rows in groups)
            message = f"{counted(more, 'image')} that equal another byte by byte"
            yield Hit((split,), more, message, group_spots(audited.splits[split], groups))


def near_copies(audited: Audited) -> Iterator[Hit]:
    """Nearly the same picture twice in a split."""
    for split, pictures in audited.pictures.items():
        groups = joined(near_duplicates({split: pictures}, FLAT))
        if groups:
            more = sum(len(places) - 1 for places in groups)
            message = f"{counted(more, 'image')} that look like another: resized, recompressed, or frames of a video"
            rows = [[row for _, row in places] for places in groups]
            yield Hit((split,), more, message, group_spots(audited.splits[split], rows))


def near_leaks(audited: Audited) -> Iterator[Hit]:
    """Nearly the same picture in two splits."""
    for (one, other), pairs in across(near_duplicates(audited.pictures, FLAT)).items():
        ordered = sorted(pairs, key=lambda pair: -pair.alike)
        spots = []
        for pair in ordered[:SHOWN]:
            (split, row), (there, twin) = pair.first, pair.second
            text = f"like {audited.splits[there].images[twin].name} of {there} (correlation {pair.alike:.3f})"
            spots.append(Spot(split, row, -1, text))
        message = f"{counted(len(pairs), 'pair')} of nearly equal images, one in {one} and one in {other}"
        yield Hit((one, other), len(pairs), message, tuple(spots))


def rotated(audited: Audited) -> Iterator[Hit]:
    """Images that are turned when shown."""
    for split, pictures in audited.pictures.items():
        rows = np.flatnonzero(pictures.orientation != 1)
        if len(rows):
            message = f"{share(len(rows), len(pictures))} images with an EXIF orientation; they are turned upright"
            texts = [f"orientation {pictures.orientation[row]}" for row in rows[:SHOWN]]
            yield Hit((split,), len(rows), message, image_spots(audited.splits[split], rows, texts))


def odd_modes(audited: Audited) -> Iterator[Hit]:
    """Images that do not store three colours."""
    for split, pictures in audited.pictures.items():
        rows = [row for row, mode in enumerate(pictures.mode) if mode]
        if rows:
            kinds = Counter(pictures.mode[row] for row in rows)
            words = ", ".join(f"{mode} {count}" for mode, count in kinds.most_common())
            message = f"{share(len(rows), len(pictures))} images are not stored as three colours: {words}"
            spots = image_spots(audited.splits[split], rows, [pictures.mode[row] for row in rows])
            yield Hit((split,), len(rows), message, spots)


def uniform(audited: Audited) -> Iterator[Hit]:
    """Images of one colour."""
    for split, pictures in audited.pictures.items():
        rows = [row for row in np.flatnonzero(pictures.spread < FLAT).tolist() if row not in pictures.fault]
        if rows:
            message = f"{counted(len(rows), 'image')} of a single colour"
            yield Hit((split,), len(rows), message, image_spots(audited.splits[split], rows))


def small(audited: Audited) -> Iterator[Hit]:
    """Images that are enlarged a lot."""
    for split, labels in audited.splits.items():
        found = audited.learnable.get(split)
        if found is None or not len(labels.sizes):
            continue
        imgsz = found.setting.imgsz
        rows = np.flatnonzero(labels.sizes.max(axis=1) * SMALL < imgsz)
        if len(rows):
            message = f"{share(len(rows), len(labels.sizes))} images are enlarged more than {SMALL} times to {imgsz} px"
            texts = [f"{labels.sizes[row][1]} x {labels.sizes[row][0]} px" for row in rows[:SHOWN]]
            yield Hit((split,), len(rows), message, image_spots(labels, rows, texts))


def extreme_shape(audited: Audited) -> Iterator[Hit]:
    """Images that are mostly padding in a square."""
    for split, labels in audited.splits.items():
        if not len(labels.sizes):
            continue
        ratio = labels.sizes.max(axis=1) / np.maximum(labels.sizes.min(axis=1), 1)
        rows = np.flatnonzero(ratio > EXTREME)
        rows = rows[np.argsort(-ratio[rows], kind="stable")]
        if len(rows):
            message = f"{share(len(rows), len(ratio))} images are more than {EXTREME:g} times as long as wide"
            texts = [f"{labels.sizes[row][1]} x {labels.sizes[row][0]} px" for row in rows[:SHOWN]]
            yield Hit((split,), len(rows), message, image_spots(labels, rows, texts))
