# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Pictures of labels and detections: RGB arrays in, RGB arrays out. Keeps no state and opens no window."""

import colorsys
import math
import warnings
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from boxwright.errors import ShapeError
from boxwright.results import Detections, GroundTruth
from boxwright.structures import Targets

Image = UInt8[np.ndarray, "_ _ 3"]
GOLDEN_ANGLE = 0.61803398875  # turns of hue between neighbouring classes: never near each other, never used up


def colour(label: int) -> tuple[int, int, int]:
    """RGB of a class: saturated, of its own hue, the same in every picture."""
    hue = (0.02 + label * GOLDEN_ANGLE) % 1.0
    lightness = (0.45, 0.38, 0.55)[label // 12 % 3]
    red, green, blue = colorsys.hls_to_rgb(hue, lightness, 0.85)
    return round(red * 255), round(green * 255), round(blue * 255)


def draw(
    image: Image,
    found: Detections | GroundTruth,
    names: Sequence[str] | None = None,
    *,
    scores: bool = True,
    min_score: float = 0.0,
) -> Image:
    """A copy of the image with boxes and labels; lines and letters grow with the image.

    Boxes are px of this image. `names` are needed for a GroundTruth to show more than class numbers. Detections scored
    below `min_score` are left out; the best is drawn last, on top.
    """
    values = found.scores.tolist() if isinstance(found, Detections) else None
    if names is None:
        names = found.names if isinstance(found, Detections) else ()
    rows = list(enumerate(zip(found.boxes.tolist(), found.labels.tolist(), strict=True)))
    canvas = image.copy()
    thick = max(1, round(min(max(image.shape[:2]), 4000) / 320))
    texts = []
    for row, (box, label) in reversed(rows):
        if values is not None and values[row] < min_score:
            continue
        text = names[label] if label < len(names) else str(label)
        text = f"{text} {values[row]:.2f}" if values is not None and scores else text
        corners = [round(value) for value in box]
        cv2.rectangle(canvas, corners[:2], corners[2:], colour(label), thick)
        texts.append((text, corners, colour(label)))
    for text, corners, paint in texts:  # all text above all lines
        _tag(canvas, text, corners, paint, thick)
    return canvas


def side_by_side(
    image: Image,
    truth: GroundTruth,
    found: Detections,
    names: Sequence[str] | None = None,
    *,
    min_score: float = 0.25,
    titles: tuple[str, str] = ("labels", "predictions"),
) -> Image:
    """Labels on the left, predictions on the right."""
    names = found.names if names is None else names
    left = titled(draw(image, truth, names), titles[0])
    right = titled(draw(image, found, names, min_score=min_score), titles[1])
    gap = np.full((left.shape[0], max(4, left.shape[1] // 100), 3), 255, np.uint8)
    return np.concatenate((left, gap, right), axis=1)


def titled(image: Image, title: str) -> Image:
    """The image under a white strip with a title."""
    size = _font_px(image.shape)
    strip = np.full((round(size * 1.8), image.shape[1], 3), 255, np.uint8)
    _write(strip, title, round(size * 0.5), round(size * 0.35), size, (30, 30, 30))
    return np.concatenate((strip, image))


def grid(images: Sequence[Image], columns: int | None = None, cell: int = 480) -> Image:
    """Images in rows, each fitted into a square of `cell` px, on white.

    Raises:
        ShapeError: there are no images.
    """
    if not images:
        raise ShapeError("grid: expected at least one image, got none")
    columns = math.ceil(math.sqrt(len(images))) if columns is None else columns
    fitted = [_fit(image, cell) for image in images]
    gap = max(2, cell // 80)
    rows = [fitted[start : start + columns] for start in range(0, len(fitted), columns)]
    width = columns * (max(i.shape[1] for i in fitted) + gap) + gap
    heights = [max(i.shape[0] for i in row) + gap for row in rows]
    canvas = np.full((sum(heights) + gap, width, 3), 255, np.uint8)
    top = gap
    for row, height in zip(rows, heights, strict=True):
        for column, image in enumerate(row):
            left = gap + column * ((width - gap) // columns)
            canvas[top : top + image.shape[0], left : left + image.shape[1]] = image
        top += height
    return canvas


def draw_batch(
    images: UInt8[Tensor, "B 3 H W"], targets: Targets, names: Sequence[str], *, limit: int = 16, cell: int = 480
) -> Image:
    """The first images of a training batch with their targets, as the network gets them."""
    pictures = []
    for index in range(min(limit, images.shape[0])):
        valid = targets.valid[index]
        pixels = np.ascontiguousarray(images[index].permute(1, 2, 0).cpu().numpy())
        truth = GroundTruth(
            boxes=targets.boxes[index][valid].float().cpu(),
            labels=targets.labels[index][valid].cpu(),
            image_size=(pixels.shape[0], pixels.shape[1]),
        )
        # enlarge before drawing: lines and letters keep their size on small inputs
        pictures.append(_draw_fitted(pixels, truth, names, cell))
    return grid(pictures, cell=cell)


def class_counts(names: Sequence[str], counts: Mapping[str, Sequence[int]]) -> Image:
    """Bars of how many objects each class has, one colour per split, as in {"train": [..], "val": [..]}.

    Raises:
        ShapeError: a split does not have one count per name.
    """
    from matplotlib.figure import Figure

    for split, values in counts.items():
        if len(values) != len(names):
            raise ShapeError(f"class_counts: expected {len(names)} counts for {split}, got {len(values)}")
    height = float(np.clip(0.3 * len(names) * max(1, len(counts) * 0.6) + 1.2, 2.5, 40))
    figure = Figure(figsize=(8, height), layout="constrained", dpi=120)
    axes = figure.add_subplot()
    thickness = 0.8 / max(len(counts), 1)
    for turn, (split, values) in enumerate(counts.items()):
        where = np.arange(len(names)) + (turn - (len(counts) - 1) / 2) * thickness
        bars = axes.barh(where, values, height=thickness * 0.92, label=split, color=f"C{turn}")
        axes.bar_label(bars, padding=3, fontsize=8, color="0.3")
    axes.set_yticks(range(len(names)), [name.replace("$", r"\$") for name in names])
    axes.invert_yaxis()
    axes.set_xlabel("objects")
    axes.margins(x=0.12, y=0.01)
    axes.spines[["top", "right"]].set_visible(False)
    if len(counts) > 1:
        axes.legend(frameon=False)
    return _rendered(figure)


def _rendered(figure: Any) -> np.ndarray:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # shown as a box; the picture stays useful
        canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]


def _draw_fitted(image: np.ndarray, truth: GroundTruth, names: Sequence[str], cell: int) -> np.ndarray:
    fitted = _fit(image, cell)
    factor = torch.tensor([fitted.shape[1] / image.shape[1], fitted.shape[0] / image.shape[0]]).repeat(2)
    size = (fitted.shape[0], fitted.shape[1])
    return draw(fitted, GroundTruth(truth.boxes * factor, truth.labels, size), names)


def _fit(image: np.ndarray, cell: int) -> np.ndarray:
    factor = cell / max(image.shape[:2])
    height, width = (max(1, round(side * factor)) for side in image.shape[:2])
    way = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    return image if factor == 1 else cv2.resize(image, (width, height), interpolation=way)


def _font_px(shape: tuple[int, ...]) -> int:
    return max(10, round(min(max(shape[:2]), 4000) / 40))


def _tag(canvas: np.ndarray, text: str, corners: list[int], paint: tuple[int, int, int], thick: int) -> None:
    """Text on a filled strip at the top left corner of a box, moved inside where it would leave the image."""
    size = _font_px(canvas.shape)
    mask = _letters(text, size)
    height, width = mask.shape[0] + size // 3, mask.shape[1] + size // 2
    left = int(np.clip(corners[0] - thick // 2, 0, max(canvas.shape[1] - width, 0)))
    above = corners[1] - height
    top = int(np.clip(above if above >= 0 else corners[1], 0, max(canvas.shape[0] - height, 0)))
    canvas[top : top + height, left : left + width] = paint
    red, green, blue = paint
    bright = 0.299 * red + 0.587 * green + 0.114 * blue > 150
    _write(canvas, text, left + size // 4, top + size // 6, size, (0, 0, 0) if bright else (255, 255, 255))


def _write(canvas: np.ndarray, text: str, left: int, top: int, size: int, paint: tuple[int, int, int]) -> None:
    mask = _letters(text, size)
    part = canvas[top : top + mask.shape[0], left : left + mask.shape[1]]
    share = mask[: part.shape[0], : part.shape[1], None].astype(np.float32) / 255
    part[:] = np.round(part * (1 - share) + np.array(paint, np.float32) * share)


@lru_cache(maxsize=1024)
def _letters(text: str, size: int) -> np.ndarray:
    """Coverage 0..255 of a line of text, `size` px high, in the font of matplotlib; "?" for signs it lacks."""
    from matplotlib import font_manager, ft2font

    font = ft2font.FT2Font(font_manager.findfont("DejaVu Sans"))
    font.set_size(size * 0.75, 72)
    font.set_text("".join(sign if font.get_char_index(ord(sign)) else "?" for sign in text) or " ", 0.0)
    font.draw_glyphs_to_bitmap(antialiased=True)
    letters = np.asarray(font.get_image())
    # Lines of letters without and with parts below the base line must stand equally high: pad to a common box.
    below = math.ceil(font.get_descent() / 64)
    canvas = np.zeros((size, max(letters.shape[1], 1)), np.uint8)
    bottom = min(size, round(size * 0.78) + below)
    top = max(0, bottom - letters.shape[0])
    canvas[top:bottom] = letters[letters.shape[0] - (bottom - top) :]
    canvas.setflags(write=False)
    return canvas
