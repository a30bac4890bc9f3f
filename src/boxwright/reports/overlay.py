# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Pictures of an inspection: objects and their candidates by fate, and the background that costs most."""

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from boxwright.errors import ConfigError, DataError, ShapeError
from boxwright.inspector.probe import Inspection
from boxwright.losses.assign.trace import FATES, Fate
from boxwright.models.weights import replace_atomically
from boxwright.reports.legend import SIGNS, Mark
from boxwright.reports.pictures import Source, load_picture
from boxwright.table import Table
from boxwright.viz.lettering import font_px, tag, write
from boxwright.viz.strokes import outline_box

Image = UInt8[np.ndarray, "_ _ 3"]
Colour = tuple[int, int, int]

LONGEST = 1280  # px of a drawn picture: small inputs are enlarged to about this, so that dots do not hide objects
LABELLED, LONELY, SUSPECT = (255, 255, 255), (255, 92, 77), (255, 92, 244)  # RGB
FAR = 9999.0  # px; a box beyond it is cut, drawing counts in short integers
LISTED_BACKGROUND = 12  # candidates that a background picture shows


def draw_candidates(
    image: Image,
    inspection: Inspection,
    number: int,
    *,
    stride: int | None = None,
    objects: Sequence[int] | None = None,
    fates: Sequence[Fate] = FATES,
) -> Image:
    """The image with its labelled boxes and the candidates of each, coloured and shaped by fate, over a legend.

    Args:
        image: RGB pixels of the network's input.
        inspection: holds candidates (`inspect(..., shown=...)`).
        number: of the image in the inspection.
        stride: candidates of this level only, with its grid; None draws all levels.
        objects: slots whose candidates are drawn; None draws all objects'.
        fates: that are drawn. What learns is drawn last, on top.

    Raises:
        ConfigError: there is no such image.
    """
    _need_image(inspection, number)
    canvas, factor = _enlarged(image)
    if stride is not None:
        _grid(canvas, stride * factor)
    _boxes(canvas, _of_image(inspection.objects, number), factor)
    candidates = _of_image(inspection.candidates, number)
    if len(candidates) and "x" in candidates:
        told = np.isin(candidates["fate"], list(fates))
        told &= True if stride is None else candidates["stride"] == stride
        told &= True if objects is None else np.isin(candidates["object"], list(objects))
        candidates = candidates.take(told)
        radius = max(3, round(min(canvas.shape[:2]) / 150))
        order = np.argsort(candidates["fate"] == "positive", kind="stable")
        for row in candidates.take(order).rows():
            _mark(canvas, row["fate"], (round(row["x"] * factor), round(row["y"] * factor)), radius)
    present = [fate for fate in FATES if len(candidates) and (candidates["fate"] == fate).any()]
    return _with_legend(canvas, present)


def draw_background(image: Image, inspection: Inspection, number: int, count: int = LISTED_BACKGROUND) -> Image:
    """The image with its labels (white) and its costliest background candidates (pink), with class and score.

    Raises:
        ConfigError: there is no such image.
    """
    _need_image(inspection, number)
    canvas, factor = _enlarged(image)
    _boxes(canvas, _of_image(inspection.objects, number), factor)
    thick = max(1, round(min(canvas.shape[:2]) / 300))
    for row in reversed(list(_of_image(inspection.background, number).head(count).rows())):
        corners = [float(np.clip(row[name] * factor, -FAR, FAR)) for name in ("x1", "y1", "x2", "y2")]
        outline_box(canvas, corners, SUSPECT, thick)
        tag(canvas, f"{row['class']} {row['score']:.2f}", [round(value) for value in corners[:2]], SUSPECT, thick)
    return canvas


def save_overlays(
    folder: Path,
    inspection: Inspection,
    images: Source,
    *,
    most: int = 50,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[Path, ...]:
    """Pictures of the images that cost most: all levels, every level on its own, and background.

    Args:
        folder: is made; files are `IMAGE_all.png`, `IMAGE_stride8.png`, ..., `IMAGE_background.png`.
        inspection: of these images.
        images: as for `write_report`.
        most: images that are drawn.
        on_progress: called with how many images are done, and of how many.

    Returns:
        The files written.

    Raises:
        ShapeError: an image is not (H, W, 3) uint8.
        DataError: a file cannot be written.
    """
    dear = np.nan_to_num(inspection.images["loss"].astype(np.float64), nan=np.inf, posinf=np.inf)
    rows = np.sort(np.argsort(-dear, kind="stable")[:most]).tolist()
    strides = np.unique(inspection.candidates["stride"]).tolist() if "stride" in inspection.candidates else []
    written = []
    for done, row in enumerate(rows, start=1):
        image = load_picture(images, row)
        if image is not None:
            number = int(inspection.images["image"][row])
            pictures = {"all": draw_candidates(image, inspection, number)}
            pictures |= {f"stride{s}": draw_candidates(image, inspection, number, stride=s) for s in strides}
            pictures["background"] = draw_background(image, inspection, number)
            written += [_save(folder / f"{number:06d}_{name}.png", made) for name, made in pictures.items()]
        if on_progress is not None:
            on_progress(done, len(rows))
    return tuple(written)


def _save(path: Path, picture: np.ndarray) -> Path:
    _, data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    try:
        with replace_atomically(path) as temporary:
            temporary.write_bytes(data.tobytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror}") from None
    return path


def _need_image(inspection: Inspection, number: int) -> None:
    known = inspection.images["image"]
    if number not in known:
        raise ConfigError(f"image {number}: the inspection is of images {known.min()} to {known.max()}")


def _of_image(table: Table, number: int) -> Table:
    return table.take(table["image"] == number) if len(table) else table


def _enlarged(image: np.ndarray) -> tuple[np.ndarray, int]:
    """A copy, a whole number of times as large, and that number: pixels stay where the grid says they are."""
    if image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ShapeError(f"overlay: expected an image (H, W, 3), got {image.shape}")
    factor = max(1, LONGEST // max(image.shape[:2]))
    size = (image.shape[1] * factor, image.shape[0] * factor)
    return (image.copy() if factor == 1 else cv2.resize(image, size, interpolation=cv2.INTER_CUBIC)), factor


def _grid(canvas: np.ndarray, step: int) -> None:
    for start, axis in ((slice(None, None, step), 0), (slice(None, None, step), 1)):
        lines = canvas[start] if axis == 0 else canvas[:, start]
        lines[:] = lines // 2 + 64


def _boxes(canvas: np.ndarray, objects: Table, factor: int) -> None:
    thick = max(1, round(min(canvas.shape[:2]) / 300))
    for row in objects.rows():
        paint = LONELY if row["positives"] == 0 else LABELLED
        corners = [row[name] * factor for name in ("x1", "y1", "x2", "y2")]
        box = corners
        if "theta" in row:
            centre = [(corners[0] + corners[2]) / 2, (corners[1] + corners[3]) / 2]
            box = [*centre, row["w"] * factor, row["h"] * factor, row["theta"]]
        outline_box(canvas, box, (0, 0, 0), thick + 2)
        outline_box(canvas, box, paint, thick)
        tag(canvas, f"{row['object']} {row['class']}", [round(value) for value in corners[:2]], paint, thick)


def _mark(canvas: np.ndarray, fate: Fate, centre: tuple[int, int], radius: int) -> None:
    """A fate's mark: dark below, so that it is seen on any ground."""
    sign = SIGNS[fate]
    x, y = centre
    thin = max(1, radius // 3)
    for paint, thick in (((0, 0, 0), thin + 2), (sign.colour, thin)):
        _shape(canvas, sign.mark, x, y, radius, paint, thick)


def _shape(canvas: np.ndarray, mark: Mark, x: int, y: int, r: int, paint: Colour, thick: int) -> None:
    if mark in ("disc", "dot", "ring"):
        radius = max(1, r // 2) if mark == "dot" else r
        grown = radius if mark == "ring" else radius + thick // 2
        cv2.circle(canvas, (x, y), grown, paint, thick if mark == "ring" else -1, cv2.LINE_AA)
        return
    lines: dict[Mark, tuple[list[tuple[int, int]], ...]] = {
        "cross": ([(-r, -r), (r, r)], [(r, -r), (-r, r)]),
        "plus": ([(-r, 0), (r, 0)], [(0, -r), (0, r)]),
        "bar": ([(-r, 0), (r, 0)],),
        "square": ([(-r, -r), (r, -r), (r, r), (-r, r), (-r, -r)],),
        "diamond": ([(0, -r), (r, 0), (0, r), (-r, 0), (0, -r)],),
        "triangle": ([(0, -r), (r, r), (-r, r), (0, -r)],),
        "wedge": ([(0, r), (r, -r), (-r, -r), (0, r)],),
    }
    for line in lines[mark]:
        points = np.array([(x + dx, y + dy) for dx, dy in line], np.int32)
        cv2.polylines(canvas, [points], False, paint, thick, cv2.LINE_AA)


def _with_legend(canvas: np.ndarray, fates: Sequence[Fate]) -> np.ndarray:
    """The picture over a strip that says what the marks mean."""
    if not fates:
        return canvas
    size = font_px(canvas.shape)
    step = round(size * 1.7)
    strip = np.full((step * len(fates) + size // 2, canvas.shape[1], 3), 255, np.uint8)
    for index, fate in enumerate(fates):
        middle = size // 4 + step * index + step // 2
        _mark(strip, fate, (size, middle), max(3, size // 3))
        write(strip, f"{SIGNS[fate].title}: {SIGNS[fate].words}", size * 2, middle - size // 2, size, (30, 30, 30))
    return np.concatenate((canvas, strip))
