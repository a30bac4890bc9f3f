# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""RandAugment: a few random changes of one strength, for whole-image labels.

Source: RandAugment, Cubuk et al. 2019, arXiv:1909.13719; ranges of the changes: AutoAugment, Cubuk et al. 2018,
arXiv:1805.09501, table 6.
"""

from collections.abc import Callable

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageEnhance, ImageOps

from boxwright.loading.augment.geometry import warp_into

CHANGES = 2  # of one image
STRENGTH = 9  # of 30, as the paper trains ResNet-50
STRONGEST = 30
MAX_SHEAR = 0.3
MAX_SHIFT = 150 / 331  # of the side
MAX_DEGREES = 30.0
MAX_FACTOR = 0.9  # enhancements multiply by 1 +- this
MAX_BITS_LOST = 4

Pixels = UInt8[np.ndarray, "h w 3"]
Change = Callable[[Pixels, float], Pixels]  # strength from -1 to 1; those without direction take its size


def rand_augment(image: Pixels, rng: np.random.Generator, *, changes: int = CHANGES, strength: float | int = STRENGTH
                 ) -> Pixels:  # fmt: skip
    """The RGB image after `changes` random operations at `strength` of 30, each either way; the argument is kept."""
    names = tuple(OPERATIONS)
    for _ in range(changes):
        name = names[int(rng.integers(len(names)))]
        sign = 1 if rng.random() < 0.5 else -1
        image = OPERATIONS[name](image, sign * strength / STRONGEST)
    return image


def _affine(image: Pixels, matrix: list[list[float | int]]) -> Pixels:
    """The image moved about its centre by a 2x3 matrix, grey outside."""
    height, width = image.shape[:2]
    whole = np.array([*matrix, [0.0, 0.0, 1.0]])
    centre = np.eye(3)
    centre[:2, 2] = width / 2, height / 2
    return warp_into(image, centre @ whole @ np.linalg.inv(centre), (height, width))


def _rotate(image: Pixels, strength: float) -> Pixels:
    angle = np.deg2rad(MAX_DEGREES * strength)
    cosine, sine = float(np.cos(angle)), float(np.sin(angle))
    return _affine(image, [[cosine, sine, 0.0], [-sine, cosine, 0.0]])


def _enhance(kind: Callable[[Image.Image], "ImageEnhance._Enhance"]) -> Change:
    def change(image: Pixels, strength: float) -> Pixels:
        return np.asarray(kind(Image.fromarray(image)).enhance(1 + MAX_FACTOR * strength))

    return change


def _whole(function: Callable[[Image.Image], Image.Image]) -> Change:
    def change(image: Pixels, strength: float) -> Pixels:
        return np.asarray(function(Image.fromarray(image)))

    return change


def _posterize(image: Pixels, strength: float) -> Pixels:
    lost = round(MAX_BITS_LOST * abs(strength))
    return image & np.uint8(256 - (1 << lost))


def _solarize(image: Pixels, strength: float) -> Pixels:
    """Inverts all values from a threshold on, which falls from 256 to 0."""
    threshold = 256 * (1 - abs(strength))
    levels = np.arange(256)
    return np.asarray(cv2.LUT(image, np.where(levels >= threshold, 255 - levels, levels).astype(np.uint8)))


def _identity(image: Pixels, strength: float) -> Pixels:
    return image


# The fourteen of the paper, in its order.
OPERATIONS: dict[str, Change] = {
    "identity": _identity,
    "autocontrast": _whole(ImageOps.autocontrast),
    "equalize": _whole(ImageOps.equalize),
    "rotate": _rotate,
    "solarize": _solarize,
    "color": _enhance(ImageEnhance.Color),
    "posterize": _posterize,
    "contrast": _enhance(ImageEnhance.Contrast),
    "brightness": _enhance(ImageEnhance.Brightness),
    "sharpness": _enhance(ImageEnhance.Sharpness),
    "shear_x": lambda image, strength: _affine(image, [[1, MAX_SHEAR * strength, 0], [0, 1, 0]]),
    "shear_y": lambda image, strength: _affine(image, [[1, 0, 0], [MAX_SHEAR * strength, 1, 0]]),
    "translate_x": lambda image, strength: _affine(image, [[1, 0, MAX_SHIFT * strength * image.shape[1]], [0, 1, 0]]),
    "translate_y": lambda image, strength: _affine(image, [[1, 0, 0], [0, 1, MAX_SHIFT * strength * image.shape[0]]]),
}
