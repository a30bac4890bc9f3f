# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Drawn scenes with exact labels: the dataset that needs no download.

Four classes differ by shape only. Colour, size, place and tilt are drawn independently of the class; backgrounds
are textured and cluttered; objects overlap. A box is the full extent of its object, also where another one hides it,
and at least `MIN_SHOWN` of every object stays in sight.
"""

import math
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Int64, UInt8

from boxwright.data.sample import Instances
from boxwright.errors import ConfigError, DataError

NAMES = ("circle", "square", "triangle", "cross")
MIN_SIZE, MAX_SIZE = 0.09, 0.35  # long side of a box over the side of the image
MIN_OBJECTS, MAX_OBJECTS = 2, 8
MIN_SHOWN = 0.45  # share of an object's pixels
MAX_TILT = math.radians(25)  # to either side of upright
MIN_CONTRAST = 100.0  # distance in RGB between an object and what it is painted on
SMALLEST = 64  # px; at 9 % of less, shapes are not told apart
_OVERSAMPLE = 4  # outlines are drawn this much larger, then averaged
# JPEG that keeps the colours of small shapes: no chroma subsampling.
_ENCODING = [
    cv2.IMWRITE_JPEG_QUALITY, 95,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
]  # fmt: skip
_SPLITS = ("train", "val")


@dataclass(frozen=True, slots=True)
class Scene:
    """A drawn image, its objects and which pixels each covers when nothing is in front of it."""

    image: UInt8[np.ndarray, "s s 3"]  # RGB
    instances: Instances
    masks: Bool[np.ndarray, "n s s"]
    owner: Int64[np.ndarray, "s s"]  # object seen at each pixel, -1 for background


@dataclass(frozen=True, slots=True)
class _Shape:
    """One object before it has a place."""

    alpha: UInt8[np.ndarray, "h w"]  # share of each pixel that it covers
    mask: Bool[np.ndarray, "h w"]  # at least half covered; touches all four sides
    label: int


def draw_dataset(
    folder: str | Path,
    *,
    train: int = 1100,
    val: int = 200,
    imgsz: int = 192,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Draws a dataset in YOLO layout and returns its `data.yaml`; the same arguments draw the same files.

    A folder that already holds exactly this dataset is left as it is. The folder appears whole or not at all.

    Raises:
        DataError: the folder holds something else.
        ConfigError: fewer than one image, or a side below 64 px.
    """
    if min(train, val) < 1 or imgsz < SMALLEST:
        raise ConfigError(
            f"data draw: expected at least 1 image in each split and a side of at least {SMALLEST} px, "
            f"got train={train}, val={val}, imgsz={imgsz}"
        )
    folder = Path(folder)
    text = _describe(train, val, imgsz, seed)
    if folder.exists() and any(folder.iterdir()):
        if (folder / "data.yaml").is_file() and (folder / "data.yaml").read_text(encoding="utf-8") == text:
            return folder / "data.yaml"
        raise DataError(f"{folder}: expected a new or empty folder, it holds other files; choose another place")
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        unfinished.chmod(0o755)
        _fill(unfinished, {"train": train, "val": val}, imgsz, seed, on_progress)
        (unfinished / "data.yaml").write_text(text, encoding="utf-8")
        os.replace(unfinished, folder)  # noqa: PTH105  # Path.replace says the same; this one is known to be atomic
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return folder / "data.yaml"


def draw_scene(imgsz: int, seed: int, split: str, index: int) -> Scene:
    """Scene `index` of a split: depends on the four arguments only."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, _SPLITS.index(split), index]))
    image = _background(rng, imgsz)
    owner = np.full((imgsz, imgsz), -1, np.int64)
    shapes: list[_Shape] = []
    corners: list[tuple[int, int]] = []
    for _ in range(int(rng.integers(MIN_OBJECTS, MAX_OBJECTS + 1))):
        shape, corner = _find_place(rng, owner, shapes)
        _paint(rng, image, owner, shape, corner, len(shapes))
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
    return Scene(image, Instances(boxes, labels), masks, owner)


def _find_place(rng: np.random.Generator, owner: np.ndarray, before: list[_Shape]) -> tuple[_Shape, tuple[int, int]]:
    """A shape and its top left corner, such that enough of every earlier object stays in sight."""
    side = len(owner)
    largest = MAX_SIZE
    shown = np.bincount(owner.ravel() + 1, minlength=len(before) + 1)[1:]
    areas = np.array([shape.mask.sum() for shape in before])
    while True:
        shape = _draw_shape(rng, int(rng.integers(len(NAMES))), rng.uniform(MIN_SIZE, largest) * side, side)
        height, width = shape.mask.shape
        x, y = int(rng.integers(side - width + 1)), int(rng.integers(side - height + 1))
        covered = np.bincount(owner[y : y + height, x : x + width][shape.mask] + 1, minlength=len(before) + 1)[1:]
        if np.all(shown - covered >= MIN_SHOWN * areas):
            return shape, (x, y)
        largest = max(largest * 0.97, 1.5 * MIN_SIZE)  # a crowded scene takes smaller ones


def _draw_shape(rng: np.random.Generator, label: int, size: float, side: int) -> _Shape:
    """A rotated, slightly stretched shape whose box has the long side `size` px."""
    points = _OUTLINES[NAMES[label]] * (1.0, rng.uniform(0.85, 1.0))
    angle = rng.uniform(-MAX_TILT, MAX_TILT)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = points @ turn.T
    points -= points.min(0)
    points *= size / points.max()
    fine = np.zeros([int(np.ceil(extent)) * _OVERSAMPLE + 2 * _OVERSAMPLE for extent in points.max(0)[::-1]], np.uint8)
    cv2.fillPoly(fine, [np.round((points + 1) * _OVERSAMPLE).astype(np.int32)], 255)
    alpha = cv2.resize(fine, (fine.shape[1] // _OVERSAMPLE, fine.shape[0] // _OVERSAMPLE), interpolation=cv2.INTER_AREA)
    mask = alpha >= 128
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    inside = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    alpha, mask = alpha[inside], mask[inside]
    # Thin tips may be less than half a pixel: draw again, a little larger or smaller, until the size is in range.
    if not MIN_SIZE * side <= max(mask.shape) <= MAX_SIZE * side:
        return _draw_shape(rng, label, rng.uniform(MIN_SIZE, MAX_SIZE) * side, side)
    return _Shape(alpha, mask, label)


def _paint(
    rng: np.random.Generator, image: np.ndarray, owner: np.ndarray, shape: _Shape, corner: tuple[int, int], number: int
) -> None:
    """Paints the shape onto `image` (float32) and `owner`, in a colour that differs from what is there."""
    (x, y), (height, width) = corner, shape.mask.shape
    under = image[y : y + height, x : x + width]
    behind = under[shape.mask].mean(0)
    colour = rng.uniform(0, 255, 3)
    while np.linalg.norm(colour - behind) < MIN_CONTRAST:
        colour = rng.uniform(0, 255, 3)
    light = np.linspace(1, 1 + rng.uniform(-0.3, 0.3), width, dtype=np.float32)  # darker or brighter to the right
    share = shape.alpha.astype(np.float32) / 255
    for channel, value in enumerate(colour.tolist()):
        under[..., channel] += share * (value * light - under[..., channel])
    owner[y : y + height, x : x + width][shape.mask] = number


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
    folder: Path, counts: dict[str, int], imgsz: int, seed: int, on_progress: Callable[[int, int], None] | None
) -> None:
    done, total = 0, sum(counts.values())
    for split, count in counts.items():
        images, labels = folder / "images" / split, folder / "labels" / split
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        for index in range(count):
            scene = draw_scene(imgsz, seed, split, index)
            bgr = cv2.cvtColor(scene.image, cv2.COLOR_RGB2BGR)
            encoded = cv2.imencode(".jpg", bgr, _ENCODING)[1]
            (images / f"{index:06d}.jpg").write_bytes(encoded.tobytes())
            (labels / f"{index:06d}.txt").write_text(_rows(scene.instances, imgsz), encoding="ascii")
            done += 1
            if on_progress is not None:
                on_progress(done, total)


def _rows(instances: Instances, side: int) -> str:
    boxes = instances.boxes.astype(np.float64) / side
    rows = []
    for label, (x1, y1, x2, y2) in zip(instances.labels.tolist(), boxes.tolist(), strict=True):
        rows.append(f"{label} {(x1 + x2) / 2:.8f} {(y1 + y2) / 2:.8f} {x2 - x1:.8f} {y2 - y1:.8f}\n")
    return "".join(rows)


def _describe(train: int, val: int, imgsz: int, seed: int) -> str:
    names = "".join(f"  {index}: {name}\n" for index, name in enumerate(NAMES))
    return (
        f"# Drawn by boxwright: train={train} val={val} imgsz={imgsz} seed={seed}\n"
        f"train: images/train\nval: images/val\nnames:\n{names}"
    )


def _ring(radii: list[float], turn: float = 0.0) -> np.ndarray:
    """Points around the origin, one for each radius."""
    angles = np.linspace(0, 2 * np.pi, len(radii), endpoint=False) + turn
    return np.asarray(np.stack([np.cos(angles), np.sin(angles)], axis=1) * np.array(radii)[:, None])


_ARM = 0.34  # half width of a cross's arm
_OUTLINES = {
    "circle": _ring([1.0] * 72),
    "square": _ring([1.0] * 4, turn=math.pi / 4),
    "triangle": _ring([1.0] * 3, turn=-math.pi / 2),  # upright: y points down
    "cross": np.array([
        (-_ARM, -1), (_ARM, -1), (_ARM, -_ARM), (1, -_ARM), (1, _ARM), (_ARM, _ARM),
        (_ARM, 1), (-_ARM, 1), (-_ARM, _ARM), (-1, _ARM), (-1, -_ARM), (-_ARM, -_ARM),
    ]),
}  # fmt: skip
