# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""What was found in an image, or is labelled there, drawn onto it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from torch import Tensor

from boxwright.results import Classification, Detections, GroundTruth, ImageTruth, InstanceMask, Outline
from boxwright.viz.lettering import Image, font_px, tag
from boxwright.viz.strokes import colour, cover_mask, join_keypoints, outline_box, thickness
from boxwright.vocabulary import AttributeSpec, KeypointSpec

SHOWN_CLASSES = 5  # of a classification, best first
LEAST_SHOWN = 0.01  # probability of the others


@dataclass(frozen=True, slots=True)
class Sketch:
    """One object to draw, px of the canvas."""

    box: list[float]  # xyxy, or cx cy w h and radians
    label: int
    text: str
    mask: InstanceMask | None = None
    keypoints: np.ndarray | None = None  # (K, 3)


def draw(
    image: Image,
    found: Detections | GroundTruth | Classification | ImageTruth,
    names: Sequence[str] | None = None,
    *,
    scores: bool = True,
    min_score: float = 0.0,
    keypoints: KeypointSpec | None = None,
    attributes: Sequence[AttributeSpec] = (),
    enlarge: float = 1.0,
) -> Image:
    """A copy of the image with boxes, masks, keypoints and labels; lines and letters grow with the image.

    Boxes are px of this image. `names`, `keypoints` and `attributes` are needed for a GroundTruth to show more than
    numbers and dots. Detections scored below `min_score` are left out; the best is drawn last, on top. What is known of
    the whole image is written into its upper left corner. `enlarge` draws on the image made that many times as large,
    so that lines and letters stay small beside small objects.
    """
    size = (round(image.shape[1] * enlarge), round(image.shape[0] * enlarge))
    canvas = image.copy() if enlarge == 1 else cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    if isinstance(found, Classification | ImageTruth):
        _write_classes(canvas, found, names)
        return canvas
    if isinstance(found, Detections):
        names = found.names if names is None else names
        keypoints = found.keypoint_spec if keypoints is None else keypoints
        sketches = [one for one, score in zip(_found(found, names, scores), found.scores.tolist(), strict=True)
                    if score >= min_score]  # fmt: skip
    else:
        sketches = _labelled(found, names or (), attributes)
    paint_sketches(canvas, [enlarged(one, enlarge) for one in sketches], keypoints)
    return canvas


def paint_sketches(canvas: np.ndarray, sketches: Sequence[Sketch], keypoints: KeypointSpec | None = None) -> None:
    """Draws objects into the canvas, the first on top: all areas, then lines, then text."""
    thick = thickness(canvas.shape)
    for one in reversed(sketches):
        if one.mask is not None:
            cover_mask(canvas, one.mask, colour(one.label), thick)
    starts = [outline_box(canvas, one.box, colour(one.label), thick) for one in reversed(sketches)]
    for one in reversed(sketches):
        if one.keypoints is not None:
            join_keypoints(canvas, one.keypoints, keypoints, colour(one.label), thick)
    for one, start in zip(reversed(sketches), starts, strict=True):
        tag(canvas, one.text, list(start), colour(one.label), thick)


def enlarged(one: Sketch, factor: float) -> Sketch:
    """The same object in an image that many times as large."""
    if factor == 1:
        return one
    box = [value * factor if index < 4 else value for index, value in enumerate(one.box)]
    points = None if one.keypoints is None else one.keypoints * (factor, factor, 1.0)
    mask = one.mask
    if mask is not None:
        top, left = round(mask.top * factor), round(mask.left * factor)
        bottom, right = (
            round((start + length) * factor)
            for start, length in zip((mask.top, mask.left), mask.pixels.shape, strict=True)
        )
        size = (max(right - left, 1), max(bottom - top, 1))
        pixels = cv2.resize(mask.pixels.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
        mask = InstanceMask(left, top, pixels)
    return replace(one, box=box, mask=mask, keypoints=points)


def name_of(label: int, names: Sequence[str]) -> str:
    """The class's name, or its number where there is none."""
    return names[label] if label < len(names) else str(label)


def _found(found: Detections, names: Sequence[str], scores: bool) -> list[Sketch]:
    points = None if found.keypoints is None else found.keypoints.cpu().numpy()
    rows = zip(found.boxes.tolist(), found.labels.tolist(), found.scores.tolist(), strict=True)
    sketches = []
    for row, (box, label, score) in enumerate(rows):
        text = f"{name_of(label, names)} {score:.2f}" if scores else name_of(label, names)
        text += "".join(f", {value}" for value in _told(found.attributes, found.attribute_specs, row))
        mask = None if found.masks is None else found.masks[row]
        sketches.append(Sketch(box, label, text, mask, None if points is None else points[row]))
    return sketches


def _labelled(truth: GroundTruth, names: Sequence[str], specs: Sequence[AttributeSpec]) -> list[Sketch]:
    points = None if truth.keypoints is None else truth.keypoints.cpu().numpy()
    rows = zip(truth.boxes.tolist(), truth.labels.tolist(), strict=True)
    sketches = []
    for row, (box, label) in enumerate(rows):
        text = name_of(label, names)
        text += "".join(f", {value}" for value in _told(truth.attributes, specs, row))
        mask = None if truth.outlines is None else filled(truth.outlines[row], truth.image_size)
        sketches.append(Sketch(box, label, text, mask, None if points is None else points[row]))
    return sketches


def filled(outline: Outline, image_size: tuple[int, int]) -> InstanceMask | None:
    """The pixels inside an outline, for drawing; None where there are none in the image."""
    parts = [np.round(part).astype(np.int32) for part in outline if len(part) >= 3]
    if not parts:
        return None
    points = np.concatenate(parts)
    height, width = image_size
    left, top = np.clip(points.min(axis=0), 0, (width, height)).tolist()
    right, bottom = np.clip(points.max(axis=0) + 1, 0, (width, height)).tolist()
    if left >= right or top >= bottom:
        return None
    pixels = np.zeros((bottom - top, right - left), np.uint8)
    for part in parts:  # one by one: parts that overlap cover, they do not cut
        cv2.fillPoly(pixels, [part], 1, offset=(-left, -top))
    return InstanceMask(left, top, pixels > 0)


def _told(values: Mapping[str, Tensor] | None, specs: Sequence[AttributeSpec], row: int) -> list[str]:
    """The attributes of one object as words: probabilities or labels; what is not labelled (-1) is left out."""
    told = []
    for spec in specs:
        value = (values or {}).get(spec.name)
        if value is None:
            continue
        of = value[row]
        if of.ndim == 0:
            index = int(of)
            told += [spec.values[index]] if index >= 0 else []
        elif spec.multi_label:
            told += [name for name, share in zip(spec.values, of.tolist(), strict=True) if share > 0.5]
        else:
            told.append(spec.values[int(of.argmax())])
    return told


def _write_classes(canvas: np.ndarray, found: Classification | ImageTruth, names: Sequence[str] | None) -> None:
    if isinstance(found, ImageTruth):
        lines = [(name_of(found.label, names or ()), found.label)]
    else:
        best = found.scores.argsort(descending=True, stable=True)[:SHOWN_CLASSES].tolist()
        known = found.names if names is None else names
        shown = [label for place, label in enumerate(best) if place == 0 or float(found.scores[label]) >= LEAST_SHOWN]
        lines = [(f"{name_of(label, known)} {float(found.scores[label]):.2f}", label) for label in shown]
    step = font_px(canvas.shape) * 4 // 3 + 2
    for row, (text, label) in enumerate(lines):
        tag(canvas, text, [0, row * step + step], colour(label), 0)
