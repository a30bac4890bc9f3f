# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The augmentations of a training sample, in order, and their settings.

Everything about a sample follows from (seed, epoch, index): the number and order of workers and ranks play no part.
"""

import operator
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Annotated, Any, get_args, get_type_hints

import cv2
import numpy as np
from pydantic import Field

from boxwright.config import component
from boxwright.data.augment.color import jitter_hsv
from boxwright.data.augment.geometry import Picture, draw_warp, flip_boxes, keep_visible
from boxwright.data.augment.mosaic import blend, centred_layout, draw_mosaic_layout, render
from boxwright.data.sample import Instances, Sample
from boxwright.errors import ConfigError

Share = Annotated[float, Field(ge=0, le=1)]  # a probability, or a fraction of a full range
LoadImage = Callable[[int], Sample]  # by dataset index: the image with its long side at imgsz, boxes in its pixels

_COMPARE = {"ge": (operator.ge, ">="), "le": (operator.le, "<="), "lt": (operator.lt, "<")}


@component
class AugmentConfig:
    """How training images are varied; every default is the YOLOv8 recipe's.

    Source: spec/recipe section 6; values section 1.
    """

    hsv_h: Share = 0.015  # hue shift, fraction of the hue circle, either way
    hsv_s: Share = 0.7  # saturation factor 1 +- this
    hsv_v: Share = 0.4  # brightness factor 1 +- this
    degrees: Annotated[float, Field(ge=0, le=180)] = 0.0  # rotation, either way
    translate: Share = 0.1  # shift, fraction of the side, either way
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.5  # size factor 1 +- this
    shear: Annotated[float, Field(ge=0, lt=90)] = 0.0  # degrees, either way
    perspective: Annotated[float, Field(ge=0, le=0.001)] = 0.0  # per pixel, either way
    flipud: Share = 0.0  # probability
    fliplr: Share = 0.5  # probability
    mosaic: Share = 1.0  # probability of four images in one
    mixup: Share = 0.0  # probability of a blend with a second sample
    close_mosaic: Annotated[int, Field(ge=0)] = 10  # last epochs without mosaic and mixup

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self), include_extras=True)
        for field in fields(self):
            _check_range(field.name, getattr(self, field.name), hints[field.name])

    def mosaic_closed(self, epoch: int, epochs: int) -> bool:
        """Whether mosaic and mixup rest in this epoch (counted from 0) of a run of `epochs`."""
        return epoch >= epochs - self.close_mosaic


def sample_generator(seed: int, epoch: int, index: int) -> np.random.Generator:
    """The random numbers of one sample: a stream of its own for every (seed, epoch, index)."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, epoch, index])))


def build_sample(
    load: LoadImage,
    index: int,
    *,
    imgsz: int,
    config: AugmentConfig,
    rng: np.random.Generator,
    partners: Sequence[int],
    mosaic: bool = True,
) -> Sample:
    """The augmented training sample `index`: imgsz x imgsz pixels, boxes clipped to it.

    Order: mosaic or letterbox, affine (one resample), mixup, flips, HSV.
    `partners` are the indices that mosaic and mixup may take; `mosaic=False` leaves both out (the last epochs).
    """
    picture = _place(load, index, imgsz, config, rng, partners, mosaic)
    if mosaic and config.mixup and rng.random() < config.mixup:
        other = _place(load, _choose(rng, partners), imgsz, config, rng, partners, mosaic)
        picture = blend(picture, other, rng.beta(32.0, 32.0))
    image, boxes = picture.image, picture.boxes
    upside_down, mirrored = rng.random() < config.flipud, rng.random() < config.fliplr
    if upside_down or mirrored:
        image = cv2.flip(image, -1 if upside_down and mirrored else int(mirrored))
        boxes = flip_boxes(boxes, (imgsz, imgsz), upside_down=upside_down, mirrored=mirrored)
    image = jitter_hsv(image, rng, config.hsv_h, config.hsv_s, config.hsv_v)
    return Sample(image, Instances(boxes.astype(np.float32), picture.labels), index)


def _place(
    load: LoadImage,
    index: int,
    imgsz: int,
    config: AugmentConfig,
    rng: np.random.Generator,
    partners: Sequence[int],
    mosaic: bool,
) -> Picture:
    """Mosaic (or the single image, letterboxed) and affine."""
    if mosaic and config.mosaic and rng.random() <= config.mosaic:
        chosen = [load(index), *(load(_choose(rng, partners)) for _ in range(3))]
        layout = draw_mosaic_layout(rng, chosen, imgsz)
    else:
        layout = centred_layout(load(index), imgsz)
    warp = draw_warp(
        rng,
        layout.size,
        imgsz,
        degrees=config.degrees,
        translate=config.translate,
        scale=config.scale,
        shear=config.shear,
        perspective=config.perspective,
    )
    return keep_visible(render(layout, warp, imgsz), warp.scale)


def _choose(rng: np.random.Generator, partners: Sequence[int]) -> int:
    return partners[int(rng.integers(len(partners)))]


def _check_range(name: str, value: Any, hint: Any) -> None:
    for bound in (bound for constraint in get_args(hint)[1:] for bound in constraint.metadata):
        comparison = type(bound).__name__.lower()
        compare, sign = _COMPARE[comparison]
        limit = getattr(bound, comparison)
        if not compare(value, limit):
            raise ConfigError(f"augment.{name}: expected a number {sign} {limit}, got {value!r}")
