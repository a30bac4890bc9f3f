# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Masks as COCO run lengths: a few hundred bytes each, which is what evaluation keeps and compares."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float64

from boxwright.results import InstanceMask, Outline


def mask_counts(mask: InstanceMask, image_size: tuple[int, int]) -> bytes:
    """Compressed run lengths of a mask in an image of (height, width) px."""
    counts: str = mask.rle(image_size)["counts"]
    return counts.encode("ascii")


def outline_counts(outline: Outline, box: Float[np.ndarray, "4"], image_size: tuple[int, int]) -> bytes:
    """Compressed run lengths of polygons by the COCO rule; of the box (px xyxy) where there is no polygon."""
    from faster_coco_eval.core import mask as coder

    parts = [part.reshape(-1).tolist() for part in outline if len(part) >= 3]
    if not parts:
        x1, y1, x2, y2 = box.tolist()
        parts = [[x1, y1, x2, y1, x2, y2, x1, y2]]
    merged: bytes = coder.merge(coder.frPyObjects(parts, *image_size))["counts"]
    return merged


def overlaps_of(
    masks: Sequence[bytes], others: Sequence[bytes], image_size: tuple[int, int], *, of_first: bool = False
) -> Float64[np.ndarray, "n m"]:
    """Intersection over union of every pair; with `of_first`, over the area of the first."""
    from faster_coco_eval.core import mask as coder

    if not masks or not others:
        return np.zeros((len(masks), len(others)))
    first, second = ([{"size": list(image_size), "counts": of} for of in group] for group in (masks, others))
    return np.asarray(coder.iou(first, second, [int(of_first)] * len(second)), np.float64)


def areas_of(masks: Sequence[bytes], image_size: tuple[int, int]) -> Float64[np.ndarray, " n"]:
    """Number of pixels of each."""
    from faster_coco_eval.core import mask as coder

    if not masks:
        return np.zeros(0)
    return np.asarray(coder.area([{"size": list(image_size), "counts": of} for of in masks]), np.float64)
