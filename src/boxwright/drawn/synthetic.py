# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Drawn scenes with exact labels, for every task: the dataset that needs no download.

Classes differ by shape only. Colour, size, place and tilt are drawn independently of the class; backgrounds are
textured and cluttered; objects overlap. A box is the full extent of its object, also where another one hides it, and
so are outlines, oriented boxes and keypoints; at least `MIN_SHOWN` of every object stays in sight.
"""

import math
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Int64, UInt8

from boxwright.datasets.sample import Instances
from boxwright.drawn.drawn_labels import describe, label_rows
from boxwright.drawn.drawn_shapes import ATTRIBUTES, FIGURE, NAMES, STYLES, Shape, Style, draw_shape
from boxwright.errors import ConfigError, DataError
from boxwright.vocabulary import TASKS, TaskName

__all__ = ["ATTRIBUTES", "FIGURE", "NAMES", "STYLES", "DrawnScene", "draw_dataset", "draw_scene"]

MIN_SHOWN = 0.45  # share of an object's pixels
MIN_CONTRAST = 100.0  # distance in RGB between an object and what it is painted on
SMALLEST = 64  # px; at 9 % of less, shapes are not told apart
# JPEG that keeps the colours of small shapes: no chroma subsampling.
_ENCODING = [
    cv2.IMWRITE_JPEG_QUALITY, 95,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
]  # fmt: skip
_SPLITS = ("train", "val")
_CLASSIFY_NOTE = "drawn.txt"  # beside the class folders, which need no description
_COLOURS = ((210, 45, 45), (40, 180, 60), (50, 80, 220))  # of the values of ATTRIBUTES[0]
_COLOUR_SPREAD = 30.0  # around them
_WHITE, _BLACK = 245.0, 12.0  # dots and stripes


@dataclass(frozen=True, slots=True)
class DrawnScene:
    """A drawn image, its objects and which pixels each covers when nothing is in front of it."""

    image: UInt8[np.ndarray, "s s 3"]  # RGB
    instances: Instances
    masks: Bool[np.ndarray, "n s s"]
    owner: Int64[np.ndarray, "s s"]  # object seen at each pixel, -1 for background


def draw_dataset(
    folder: str | Path,
    *,
    train: int = 1100,
    val: int = 200,
    imgsz: int = 192,
    seed: int = 0,
    task: TaskName = "detect",
    attributes: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Draws a dataset in YOLO layout and returns its `data.yaml`; the same arguments draw the same files.

    To classify, it is a folder for each class, and the folder of all is returned. With `attributes`, objects have a
    colour (one of three) and marks (dot, stripe, both or none), declared in the data.yaml.
    A folder that already holds exactly this dataset is left as it is. The folder appears whole or not at all.

    Raises:
        DataError: the folder holds something else.
        ConfigError: fewer than one image, a side below 64 px, or attributes of whole images.
    """
    if min(train, val) < 1 or imgsz < SMALLEST:
        raise ConfigError(
            f"data draw: expected at least 1 image in each split and a side of at least {SMALLEST} px, "
            f"got train={train}, val={val}, imgsz={imgsz}"
        )
    if attributes and TASKS[task].whole_image:
        raise ConfigError("data draw: attributes belong to objects; task 'classify' labels whole images")
    folder, counts = Path(folder), {"train": train, "val": val}
    text = describe(counts, imgsz, seed, task, ATTRIBUTES if attributes else ())
    whole_image = TASKS[task].whole_image
    described = folder / (_CLASSIFY_NOTE if whole_image else "data.yaml")
    made = folder if whole_image else described
    if folder.exists() and any(folder.iterdir()):
        if described.is_file() and described.read_text(encoding="utf-8") == text:
            return made
        raise DataError(f"{folder}: expected a new or empty folder, it holds other files; choose another place")
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        unfinished.chmod(0o755)
        _fill(unfinished, counts, imgsz, seed, task, attributes, on_progress)
        (unfinished / described.name).write_text(text, encoding="utf-8")
        os.replace(unfinished, folder)  # noqa: PTH105  # Path.replace says the same; this one is known to be atomic
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return made


def draw_scene(
    imgsz: int, seed: int, split: str, index: int, *, task: TaskName = "detect", attributes: bool = False
) -> DrawnScene:
    """Scene `index` of a split: depends on the arguments only. Objects carry what the task labels."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, _SPLITS.index(split), index]))
    style = STYLES[task]
    image = _background(rng, imgsz)
    owner = np.full((imgsz, imgsz), -1, np.int64)
    shapes: list[Shape] = []
    corners: list[tuple[int, int]] = []
    answers: list[tuple[int, tuple[int, int]]] = []
    for _ in range(int(rng.integers(style.min_objects, style.max_objects + 1))):
        # To classify, every split shows every class.
        label = index % len(style.names) if TASKS[task].whole_image else None
        shape, corner = _find_place(rng, owner, shapes, style, label)
        answers.append(_paint(rng, image, owner, shape, corner, len(shapes), attributes))
        shapes.append(shape)
        corners.append(corner)
    masks = np.zeros((len(shapes), imgsz, imgsz), np.bool_)
    boxes = np.zeros((len(shapes), 4), np.float32)
    for place, (shape, (x, y)) in enumerate(zip(shapes, corners, strict=True)):
        height, width = shape.mask.shape
        masks[place, y : y + height, x : x + width] = shape.mask
        boxes[place] = x, y, x + width, y + height
    labels = np.array([shape.label for shape in shapes], np.int64)
    grain = rng.random((imgsz, imgsz), np.float32) * 12 - 6
    image = cv2.convertScaleAbs(np.maximum(image + grain[..., None], 0))  # clips above
    points = [shape.points + corner for shape, corner in zip(shapes, corners, strict=True)]
    objects = _labelled(Instances(boxes, labels), points, owner, task)
    if attributes:
        colours, marks = zip(*answers, strict=True)
        objects = replace(
            objects, attributes={"colour": np.array(colours, np.int64), "marks": np.array(marks, np.float32)}
        )
    return DrawnScene(image, objects, masks, owner)


def _labelled(objects: Instances, points: list[np.ndarray], owner: np.ndarray, task: TaskName) -> Instances:
    """The objects with what the task needs of their points."""
    facts = TASKS[task]
    if facts.outlines:
        return replace(objects, polygons=tuple((of.astype(np.float32),) for of in points))
    if facts.oriented:
        return replace(objects, corners=np.array(points, np.float32))
    if facts.keypoints:
        x, y = np.moveaxis(np.array(points), -1, 0)
        hidden = owner[y.astype(np.int64), x.astype(np.int64)] != np.arange(len(objects))[:, None]
        return replace(objects, keypoints=np.stack((x, y, 2.0 - hidden), axis=-1).astype(np.float32))
    return objects


def _find_place(
    rng: np.random.Generator, owner: np.ndarray, before: list[Shape], style: Style, label: int | None
) -> tuple[Shape, tuple[int, int]]:
    """A shape and its top left corner, such that enough of every earlier object stays in sight."""
    side = len(owner)
    largest = style.max_size
    shown = np.bincount(owner.ravel() + 1, minlength=len(before) + 1)[1:]
    areas = np.array([shape.mask.sum() for shape in before])
    while True:
        chosen = int(rng.integers(len(style.names))) if label is None else label
        shape = draw_shape(rng, style, chosen, rng.uniform(style.min_size, largest) * side, side)
        height, width = shape.mask.shape
        x, y = int(rng.integers(side - width + 1)), int(rng.integers(side - height + 1))
        covered = np.bincount(owner[y : y + height, x : x + width][shape.mask] + 1, minlength=len(before) + 1)[1:]
        if np.all(shown - covered >= MIN_SHOWN * areas) and _fits(shape, (x, y), side):
            return shape, (x, y)
        largest = max(largest * 0.97, 1.5 * style.min_size)  # a crowded scene takes smaller ones


def _fits(shape: Shape, corner: tuple[int, int], side: int) -> bool:
    placed = shape.points + corner
    return not shape.reach or bool(placed.min() >= 0 and placed.max() <= side)


def _paint(
    rng: np.random.Generator,
    image: np.ndarray,
    owner: np.ndarray,
    shape: Shape,
    corner: tuple[int, int],
    number: int,
    attributes: bool,
) -> tuple[int, tuple[int, int]]:
    """Paints the shape onto `image` (float32) and `owner`, in a colour that differs from what is there.

    Returns which colour it has, and whether it has a dot and a stripe.
    """
    (x, y), (height, width) = corner, shape.mask.shape
    under = image[y : y + height, x : x + width]
    behind = under[shape.mask].mean(0)
    name, colour = _colour(rng, attributes)
    while np.linalg.norm(colour - behind) < MIN_CONTRAST:
        name, colour = _colour(rng, attributes)
    light = np.linspace(1, 1 + rng.uniform(-0.3, 0.3), width, dtype=np.float32)  # darker or brighter to the right
    share = shape.alpha.astype(np.float32) / 255
    for channel, value in enumerate(colour.tolist()):
        under[..., channel] += share * (value * light - under[..., channel])
    owner[y : y + height, x : x + width][shape.mask] = number
    return name, _mark(rng, under, shape) if attributes else (0, 0)


def _colour(rng: np.random.Generator, attributes: bool) -> tuple[int, np.ndarray]:
    if not attributes:
        return 0, rng.uniform(0, 255, 3)
    name = int(rng.integers(len(_COLOURS)))
    return name, np.array(_COLOURS[name]) + rng.uniform(-_COLOUR_SPREAD, _COLOUR_SPREAD, 3)


def _mark(rng: np.random.Generator, under: np.ndarray, shape: Shape) -> tuple[int, int]:
    """Paints a white dot in the middle and a black stripe below it, each or not."""
    dot, stripe = (int(value) for value in rng.integers(0, 2, 2))
    height, width = shape.mask.shape
    y, x = np.ogrid[:height, :width]
    if dot:
        middle_y, middle_x = (of.mean() for of in np.nonzero(shape.mask))
        near = (y - middle_y) ** 2 + (x - middle_x) ** 2 <= (0.14 * min(height, width)) ** 2
        under[near & shape.mask] = _WHITE
    if stripe:
        low = (y >= 0.68 * height) & (y < 0.82 * height)
        under[np.broadcast_to(low, shape.mask.shape) & shape.mask] = _BLACK
    return dot, stripe


def _background(rng: np.random.Generator, side: int) -> np.ndarray:
    """A textured, cluttered float32 RGB image."""
    first, second = rng.uniform(20, 235, (2, 3))
    line = np.arange(side, dtype=np.float32) / side
    angle = rng.uniform(0, math.pi)
    along = line * math.cos(angle) + (line * math.sin(angle))[:, None]
    texture = rng.integers(4)
    if texture == 0:  # gradient
        share = (along - along.min()) / np.ptp(along)
    elif texture == 1:  # stripes
        share = 0.5 + 0.5 * np.sin(along * rng.uniform(20, 70) + rng.uniform(0, 6))
    elif texture == 2:  # plaid
        across = (line * math.cos(angle))[:, None] - line * math.sin(angle)
        share = 0.5 + 0.25 * (np.sin(along * rng.uniform(15, 50)) + np.sin(across * rng.uniform(15, 50)))
    else:  # clouds
        share = _stretch(rng.random((int(rng.integers(4, 14)),) * 2, np.float32), side)
    cells = int(rng.integers(8, 40))
    blotches = rng.random((cells, cells, 3), np.float32) * rng.uniform(10, 45)
    image = _stretch(blotches - blotches.mean(), side)
    for channel, (start, end) in enumerate(zip(first.tolist(), second.tolist(), strict=True)):
        image[..., channel] += share * (end - start) + start
    return _clutter(rng, image, side)


def _stretch(coarse: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC))


def _clutter(rng: np.random.Generator, image: np.ndarray, side: int) -> np.ndarray:
    """Thin lines, arcs and specks, none of which is one of the classes."""
    for _ in range(int(rng.integers(3, 10))):
        colour = rng.uniform(0, 255, 3).tolist()
        start, end = rng.integers(0, side, (2, 2)).tolist()
        kind = rng.integers(3)
        if kind == 0:
            cv2.line(image, start, end, colour, 1, cv2.LINE_AA)
        elif kind == 1:
            axes = rng.integers(side // 12, side // 3, 2).tolist()
            opening = float(rng.uniform(40, 150))
            cv2.ellipse(image, start, axes, float(rng.uniform(0, 360)), 0, opening, colour, 1, cv2.LINE_AA)
        else:
            cv2.circle(image, start, max(side // 150, 1), colour, -1)
    return image


def _fill(
    folder: Path,
    counts: dict[str, int],
    imgsz: int,
    seed: int,
    task: TaskName,
    attributes: bool,
    on_progress: Callable[[int, int], None] | None,
) -> None:
    done, total = 0, sum(counts.values())
    whole_image = TASKS[task].whole_image
    for split, count in counts.items():
        images, labels = folder / "images" / split, folder / "labels" / split
        if whole_image:
            images = folder / split
        else:
            labels.mkdir(parents=True)
        for index in range(count):
            scene = draw_scene(imgsz, seed, split, index, task=task, attributes=attributes)
            bgr = cv2.cvtColor(scene.image, cv2.COLOR_RGB2BGR)
            encoded = cv2.imencode(".jpg", bgr, _ENCODING)[1]
            place = images / STYLES[task].names[int(scene.instances.labels[0])] if whole_image else images
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{index:06d}.jpg").write_bytes(encoded.tobytes())
            if not whole_image:
                text = label_rows(scene.instances, imgsz, task, ATTRIBUTES if attributes else ())
                (labels / f"{index:06d}.txt").write_text(text, encoding="ascii")
            done += 1
            if on_progress is not None:
                on_progress(done, total)
