# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The augmentations of a training sample, in order, and their settings.

Everything about a sample follows from (seed, epoch, index): the number and order of workers and ranks play no part.
"""

import operator
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import cv2
import numpy as np
from pydantic import Field

from boxwright.config import component
from boxwright.datasets.instances import mirror
from boxwright.datasets.sample import DatasetHeader, Sample
from boxwright.errors import ConfigError
from boxwright.loading.augment.color import jitter_hsv
from boxwright.loading.augment.copy_paste import mirrored_picture, paste_objects
from boxwright.loading.augment.cutmix import draw_areas, paste_area
from boxwright.loading.augment.geometry import Picture, draw_warp, keep_visible
from boxwright.loading.augment.mosaic import blend, centred_layout, draw_mosaic_layout, render
from boxwright.vocabulary import TASKS, KeypointSpec, TaskName

Share = Annotated[float, Field(ge=0, le=1)]  # a probability, or a fraction of a full range
LoadImage = Callable[[int], Sample]  # by dataset index: the image with its long side at imgsz, boxes in its pixels

_COMPARE = {"ge": (operator.ge, ">="), "le": (operator.le, "<="), "lt": (operator.lt, "<")}


@component
class AugmentConfig:
    """How training images are varied; every default is the YOLOv8 recipe's.

    Source: spec/recipe 6; values: spec/recipe 1.
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
    cutmix: Share = 0.0  # probability that a free rectangle shows a second sample
    copy_paste: Share = 0.0  # share of the objects with an outline that appear a second time
    copy_paste_mode: Literal["flip", "mixup"] = "flip"  # mirrored in their own image, or taken from another sample
    bgr: Share = 0.0  # probability that red and blue change places
    close_mosaic: Annotated[int, Field(ge=0)] = 10  # last epochs without mosaic, mixup, cutmix and copy-paste
    # Only to classify whole images. The crop covers 1 - `scale` to 1 of the area; HSV only without another policy.
    auto_augment: Literal["randaugment", "none"] = "randaugment"
    erasing: Share = 0.4  # probability that a rectangle is blackened

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self), include_extras=True)
        for field in fields(self):
            _check_range(field.name, getattr(self, field.name), hints[field.name])

    def mosaic_closed(self, epoch: int, epochs: int) -> bool:
        """Whether all mixing of images rests in this epoch (counted from 0) of a run of `epochs`."""
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
    keypoints: KeypointSpec | None = None,
) -> Sample:
    """The augmented training sample `index`: imgsz x imgsz pixels, boxes clipped to it.

    Order: mosaic or letterbox, affine (one resample), copy-paste, mixup, cutmix, flips, HSV, swap of channels.
    `partners` are the indices that may be mixed in; `mosaic=False` leaves all mixing out (the last epochs).
    `keypoints` describes those of the objects: without a mirror order nothing is mirrored.
    """
    draw = partial(_place, load, imgsz=imgsz, config=config, rng=rng, partners=partners, mosaic=mosaic)
    picture = draw(index)
    may_mirror = keypoints is None or keypoints.flip is not None
    order = None if keypoints is None else keypoints.flip
    if mosaic:
        picture = _mix(picture, draw, partners, config, rng, may_mirror, order)
    image, objects = picture.image, picture.objects
    upside_down, mirrored = rng.random() < config.flipud, rng.random() < config.fliplr and may_mirror
    if upside_down or mirrored:
        image = cv2.flip(image, -1 if upside_down and mirrored else int(mirrored))
        objects = mirror(objects, (imgsz, imgsz), upside_down=upside_down, mirrored=mirrored, order=order)
    image = jitter_hsv(image, rng, config.hsv_h, config.hsv_s, config.hsv_v)
    if config.bgr and rng.random() < config.bgr:
        image = image[..., ::-1]
    return Sample(image, objects, index)


def _mix(
    picture: Picture,
    draw: Callable[[int], Picture],
    partners: Sequence[int],
    config: AugmentConfig,
    rng: np.random.Generator,
    may_mirror: bool,
    order: tuple[int, ...] | None,
) -> Picture:
    """Copy-paste, mixup and cutmix; a probability of 0 draws no number."""
    if config.copy_paste and config.copy_paste_mode == "mixup":
        picture = paste_objects(picture, draw(_choose(rng, partners)), config.copy_paste)
    elif config.copy_paste and may_mirror:
        picture = paste_objects(picture, mirrored_picture(picture, order), config.copy_paste)
    if config.mixup and rng.random() < config.mixup:
        picture = blend(picture, draw(_choose(rng, partners)), rng.beta(32.0, 32.0))
    if config.cutmix and rng.random() < config.cutmix:
        other = draw(_choose(rng, partners))
        picture = paste_area(picture, other, draw_areas(rng, (picture.image.shape[0], picture.image.shape[1])))
    return picture


def _place(
    load: LoadImage,
    index: int,
    *,
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


def pose_flip_message(header: DatasetHeader, augment: AugmentConfig, task: TaskName = "pose") -> str | None:
    """What to tell the user when keypoints without left-right pairs keep images from being mirrored; None: nothing.

    Source: spec/recipe 6, "Flips"; spec/datasets case 34.
    """
    if not TASKS[task].keypoints or header.keypoints is None or header.keypoints.flip is not None or not augment.fliplr:
        return None
    return (
        f"augment.fliplr: images are not mirrored, {header.source} does not say which keypoints are left-right pairs; "
        "declare them as flip_idx in data.yaml (COCO: names with left and right)"
    )


def _choose(rng: np.random.Generator, partners: Sequence[int]) -> int:
    return partners[int(rng.integers(len(partners)))]


def _check_range(name: str, value: Any, hint: Any) -> None:
    constraints = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    for bound in (bound for constraint in constraints for bound in constraint.metadata):
        comparison = type(bound).__name__.lower()
        compare, sign = _COMPARE[comparison]
        limit = getattr(bound, comparison)
        if not compare(value, limit):
            raise ConfigError(f"augment.{name}: expected a number {sign} {limit}, got {value!r}")
