# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The images of a report as JPEG, as large as its budget allows."""

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import UInt8

from boxwright.errors import ShapeError

Picture = UInt8[np.ndarray, "_ _ 3"]  # RGB, the network's input
Source = Sequence[np.ndarray] | Callable[[int], np.ndarray | None] | None

# Longest side (None: as it is) and JPEG quality, best first.
LADDER: tuple[tuple[int | None, int], ...] = (
    (None, 88), (1024, 85), (768, 82), (640, 80), (576, 79), (512, 78), (448, 77), (384, 76), (352, 75),
    (320, 74), (256, 70), (192, 65), (128, 60)
)  # fmt: skip
SAMPLED = 12  # images that a step of the ladder is tried on


@dataclass(frozen=True, slots=True)
class Pictures:
    """One JPEG in base 64 ("" where there is none) and the shape of the network's input for every image."""

    texts: list[str]
    shapes: list[tuple[int, int] | None]
    left_out: tuple[str, ...]


def encode_all(source: Source, rows: Sequence[int], budget: int) -> Pictures:
    """The pictures of some images within a number of bytes; what does not fit even at the smallest size is left out.

    A source that is a function is called for each image, a few times at most; it never has to hold them all.

    Raises:
        ShapeError: an image is not (H, W, 3) uint8.
    """
    if source is None or not len(rows):
        return Pictures([""] * len(rows), [None] * len(rows), ())
    sample = np.unique(np.linspace(0, len(rows) - 1, min(SAMPLED, len(rows))).astype(int)).tolist()
    for step, (side, quality) in enumerate(LADDER):
        guess = (
            sum(len(_encoded(load_picture(source, rows[i]), side, quality)[0]) for i in sample)
            * len(rows)
            / len(sample)
        )
        last = step == len(LADDER) - 1
        if guess > budget * 1.05 and not last:
            continue
        found = _within(source, rows, side, quality, budget, whatever_fits=last)
        if found is not None:
            return found
    raise AssertionError("the last step takes whatever fits")


def load_picture(source: Source, row: int) -> np.ndarray | None:
    """Image `row` of the source, or None where it has none.

    Raises:
        ShapeError: it is not (H, W, 3) uint8.
    """
    if source is None:
        return None
    image = source(row) if callable(source) else source[row]
    if image is None:
        return None
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ShapeError(f"image {row}: expected (H, W, 3) uint8 RGB, got {image.shape} {image.dtype}")
    return image


def _within(
    source: Source, rows: Sequence[int], side: int | None, quality: int, budget: int, *, whatever_fits: bool
) -> Pictures | None:
    texts, shapes, used, shrunk, missing = [], [], 0, 0, 0
    for row in rows:
        image = load_picture(source, row)
        text, smaller = _encoded(image, side, quality)
        if used + len(text) > budget:
            if not whatever_fits:
                return None
            text, smaller = "", False
            missing += 1
        used += len(text)
        shrunk += smaller
        texts.append(text)
        shapes.append(None if image is None else (int(image.shape[0]), int(image.shape[1])))
    told = []
    if shrunk:
        told.append(f"pixels: {shrunk} pictures are shrunk to at most {side} px (boxes and numbers are exact)")
    if missing:
        told.append(f"the pictures of the last {missing} images")
    return Pictures(texts, shapes, tuple(told))


def _encoded(image: np.ndarray | None, side: int | None, quality: int) -> tuple[str, bool]:
    """The JPEG in base 64, and whether it is smaller than the image."""
    if image is None:
        return "", False
    longest = max(image.shape[:2])
    shrink = side is not None and longest > side
    if side is not None and shrink:
        size = tuple(max(1, round(length * side / longest)) for length in (image.shape[1], image.shape[0]))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return base64.b64encode(data.tobytes()).decode("ascii"), shrink
