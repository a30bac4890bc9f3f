# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Several pictures on one sheet: labels beside predictions, grids, training batches."""

import math
from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from boxwright.errors import ShapeError
from boxwright.results import Classification, Detections, GroundTruth, ImageTruth, InstanceMask
from boxwright.structures import ImageTargets, Targets
from boxwright.viz.drawing import Sketch, draw, enlarged, name_of, paint_sketches
from boxwright.viz.lettering import Image, font_px, write
from boxwright.vocabulary import AttributeSpec, KeypointSpec


def side_by_side(
    image: Image,
    truth: GroundTruth | ImageTruth,
    found: Detections | Classification,
    names: Sequence[str] | None = None,
    *,
    min_score: float = 0.25,
    titles: tuple[str, str] = ("labels", "predictions"),
    enlarge: float = 1.0,
) -> Image:
    """Labels on the left, predictions on the right; both show keypoints and attributes as the predictions name them."""
    names = found.names if names is None else names
    keypoints: KeypointSpec | None = None
    attributes: tuple[AttributeSpec, ...] = ()
    if isinstance(found, Detections):
        keypoints, attributes = found.keypoint_spec, found.attribute_specs
    left = draw(image, truth, names, keypoints=keypoints, attributes=attributes, enlarge=enlarge)
    right = draw(image, found, names, min_score=min_score, enlarge=enlarge)
    left, right = titled(left, titles[0]), titled(right, titles[1])
    gap = np.full((left.shape[0], max(4, left.shape[1] // 100), 3), 255, np.uint8)
    return np.concatenate((left, gap, right), axis=1)


def titled(image: Image, title: str) -> Image:
    """The image under a white strip with a title."""
    size = font_px(image.shape)
    strip = np.full((round(size * 1.8), image.shape[1], 3), 255, np.uint8)
    write(strip, title, round(size * 0.5), round(size * 0.35), size, (30, 30, 30))
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
    images: UInt8[Tensor, "B 3 H W"],
    targets: Targets | ImageTargets,
    names: Sequence[str],
    *,
    keypoints: KeypointSpec | None = None,
    limit: int = 16,
    cell: int = 480,
) -> Image:
    """The first images of a training batch with their targets, as the network gets them."""
    pictures = []
    for index in range(min(limit, images.shape[0])):
        pixels = np.ascontiguousarray(images[index].permute(1, 2, 0).cpu().numpy())
        # enlarge before drawing: lines and letters keep their size on small inputs
        canvas = _fit(pixels, cell)
        canvas = canvas.copy() if canvas is pixels else canvas
        if isinstance(targets, ImageTargets):
            canvas = _with_label(canvas, targets.labels[index], names)
        else:
            factor = canvas.shape[1] / pixels.shape[1]
            sketches = [enlarged(one, factor) for one in _target_sketches(targets, index, names, pixels.shape)]
            paint_sketches(canvas, sketches, keypoints)
        pictures.append(canvas)
    return grid(pictures, cell=cell)


def _with_label(canvas: np.ndarray, label: Tensor, names: Sequence[str]) -> np.ndarray:
    """A class, or how much there is of every class where images are mixed."""
    if label.ndim == 0:
        return draw(canvas, ImageTruth(int(label)), names)
    known = tuple(name_of(index, names) for index in range(len(label)))
    return draw(canvas, Classification(label.float().cpu(), known, (canvas.shape[0], canvas.shape[1])))


def _target_sketches(targets: Targets, image: int, names: Sequence[str], shape: tuple[int, ...]) -> list[Sketch]:
    sketches = []
    for slot in targets.valid[image].nonzero()[:, 0].tolist():
        label = int(targets.labels[image, slot])
        points = None if targets.keypoints is None else targets.keypoints[image, slot].float().cpu().numpy()
        box = targets.boxes[image, slot].float().tolist()
        sketches.append(Sketch(box, label, name_of(label, names), _target_mask(targets, image, slot, shape), points))
    return sketches


def _target_mask(targets: Targets, image: int, slot: int, shape: tuple[int, ...]) -> InstanceMask | None:
    if targets.masks is not None:
        pixels = targets.masks[image, slot].cpu().numpy()
    elif targets.instance_map is not None:
        pixels = (targets.instance_map[image] == slot + 1).cpu().numpy()
    else:
        return None
    whole = cv2.resize(pixels.astype(np.uint8), (shape[1], shape[0]), interpolation=cv2.INTER_NEAREST) > 0
    return InstanceMask(0, 0, whole)


def _fit(image: np.ndarray, cell: int) -> np.ndarray:
    factor = cell / max(image.shape[:2])
    height, width = (max(1, round(side * factor)) for side in image.shape[:2])
    way = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    return image if factor == 1 else cv2.resize(image, (width, height), interpolation=way)
