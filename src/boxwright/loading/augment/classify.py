# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Augmentation for whole-image labels: random crop, flips, RandAugment or HSV, erasing."""

import math
from typing import TYPE_CHECKING

import cv2
import numpy as np
from jaxtyping import UInt8

from boxwright.datasets.policy import Fit
from boxwright.datasets.sample import Sample
from boxwright.loading.augment.color import jitter_hsv
from boxwright.loading.augment.geometry import apply_letterbox
from boxwright.loading.augment.randaugment import rand_augment
from boxwright.ops.letterbox import letterbox, stretch

if TYPE_CHECKING:
    from boxwright.loading.augment.pipeline import AugmentConfig

MIN_RATIO, MAX_RATIO = 3 / 4, 4 / 3  # width over height of a crop
ERASED_AREA = (0.02, 1 / 3)  # share of the image
ERASED_RATIO = (0.3, 3.3)  # height over width
TRIES = 10  # draws before a shape that does not fit is given up

Window = tuple[int, int, int, int]  # top, left, height, width, px


def build_image_sample(
    sample: Sample, *, imgsz: int, config: "AugmentConfig", rng: np.random.Generator, fit: Fit
) -> Sample:
    """The augmented sample, imgsz x imgsz pixels, its class unchanged.

    Order: random crop (or the whole image, letterboxed or stretched), flips, RandAugment or HSV, erasing.

    Source: spec/recipe 6, "Classification train".
    """
    image = sample.image
    if fit == "crop":
        top, left, height, width = draw_crop(rng, (image.shape[0], image.shape[1]), 1 - config.scale)
        image = _resized(image[top : top + height, left : left + width], imgsz)
    else:
        size = image.shape[0], image.shape[1]
        box = stretch(size, (imgsz, imgsz)) if fit == "stretch" else letterbox(size, (imgsz, imgsz))
        image = apply_letterbox(image, box)
    upside_down, mirrored = rng.random() < config.flipud, rng.random() < config.fliplr
    if upside_down or mirrored:
        image = cv2.flip(image, -1 if upside_down and mirrored else int(mirrored))
    if config.auto_augment == "randaugment":
        image = rand_augment(image, rng)
    else:
        image = jitter_hsv(image, rng, config.hsv_h, config.hsv_s, config.hsv_v)
    if rng.random() < config.erasing:
        image = erase(image, rng)
    if config.bgr and rng.random() < config.bgr:
        image = image[..., ::-1]
    return Sample(image, sample.instances, sample.index, sample.image_label)


def draw_crop(rng: np.random.Generator, size: tuple[int, int], least: float) -> Window:
    """A window of an image of `size` (h, w) that covers `least` to 1 of its area, 3:4 to 4:3; the middle if none fits.

    Source: Szegedy et al. 2014, arXiv:1409.4842, section 6.
    """
    height, width = size
    for _ in range(TRIES):
        area = height * width * rng.uniform(least, 1)
        ratio = math.exp(rng.uniform(math.log(MIN_RATIO), math.log(MAX_RATIO)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
    h, w = min(height, round(width / MIN_RATIO)), min(width, round(height * MAX_RATIO))
    return (height - h) // 2, (width - w) // 2, h, w


def erase(image: UInt8[np.ndarray, "h w 3"], rng: np.random.Generator) -> UInt8[np.ndarray, "h w 3"]:
    """The image with a random rectangle black; as it is when none of a few draws fits.

    Source: Random erasing, Zhong et al. 2017, arXiv:1708.04896. Deviation: black and not noise, as published
    YOLO classifiers are trained.
    """
    height, width = image.shape[:2]
    for _ in range(TRIES):
        area = height * width * rng.uniform(*ERASED_AREA)
        ratio = math.exp(rng.uniform(math.log(ERASED_RATIO[0]), math.log(ERASED_RATIO[1])))
        h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < h < height and 0 < w < width:
            top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
            result = image.copy()
            result[top : top + h, left : left + w] = 0
            return result
    return image


def _resized(image: np.ndarray, side: int) -> np.ndarray:
    shrinking = min(image.shape[:2]) > 2 * side
    return np.asarray(cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR))
