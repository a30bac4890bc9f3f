# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import json
import math
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from boxwright.ops import masks as module
from boxwright.ops.letterbox import centre_crop, letterbox, stretch
from boxwright.ops.masks import cropped, instance_masks

FOLDER = Path(os.environ.get("BOXWRIGHT_GOLDEN") or Path(__file__).parents[1] / "golden")
GOLDEN = json.loads((FOLDER / "numeric.json").read_text())["process_mask"]


def slow_mask(coefs, prototypes, box, place):
    """The mask of a whole image, pixel by pixel in float64: interpolate, then cut, then compare."""
    low = np.einsum("q,qhw->hw", coefs.astype(float), prototypes.astype(float))
    rows, columns = low.shape
    whole = np.zeros(place.source, bool)
    for y in range(place.source[0]):
        for x in range(place.source[1]):
            if not (box[0] <= x < box[2] and box[1] <= y < box[3]):
                continue
            v = ((y + 0.5) * place.resized[0] / place.source[0] + place.top) * rows / place.target[0] - 0.5
            u = ((x + 0.5) * place.resized[1] / place.source[1] + place.left) * columns / place.target[1] - 0.5
            v, u = min(max(v, 0), rows - 1), min(max(u, 0), columns - 1)
            v0, u0 = math.floor(v), math.floor(u)
            v1, u1 = min(v0 + 1, rows - 1), min(u0 + 1, columns - 1)
            upper = low[v0, u0] * (1 - u + u0) + low[v0, u1] * (u - u0)
            lower = low[v1, u0] * (1 - u + u0) + low[v1, u1] * (u - u0)
            whole[y, x] = upper * (1 - v + v0) + lower * (v - v0) > 0
    return whole


@pytest.mark.parametrize(
    "place",
    [
        letterbox((45, 80), (64, 64)),
        stretch((40, 90), (64, 32)),
        centre_crop((50, 70), 64),
        letterbox((20, 30), (64, 64)),
    ],
    ids=["shrunk and padded", "stretched", "cropped", "enlarged"],
)
def test_equals_the_full_resolution_reference(place, monkeypatch):
    monkeypatch.setattr(module, "BAND", 300)  # several bands
    rng = np.random.default_rng(0)
    prototypes = rng.normal(size=(4, place.target[0] // 4, place.target[1] // 4)).astype(np.float32)
    coefs = rng.normal(size=(5, 4)).astype(np.float32)
    height, width = place.source
    boxes = np.array(
        [[0, 0, width, height], [3.2, 4.7, 30.1, 18.0], [10, 5, 11, 6], [width - 9.5, 2, width, 15], [4, 4, 4, 9]],
        np.float32,
    )

    masks = list(instance_masks(coefs, prototypes, boxes, place))

    for row, box, mask in zip(coefs, boxes.tolist(), masks, strict=True):
        expected = slow_mask(row, prototypes, box, place)
        found = np.zeros_like(expected) if mask is None else mask.full(place.source)
        assert np.array_equal(found, expected)
    assert masks[4] is None  # a box without a pixel
    assert sum(mask.area for mask in masks if mask is not None) > 200


def test_golden_masks():
    prototypes = (np.arange(128, dtype=np.float32).reshape(2, 8, 8) / 64) - 1
    place = letterbox((32, 32), (32, 32))

    first, second = instance_masks(
        np.array(GOLDEN["coef"], np.float32), prototypes, np.array(GOLDEN["boxes"], np.float32), place
    )

    # The box of the second is the whole image, so the order of cutting and interpolating makes no difference.
    assert second.area == GOLDEN["sum_upsampled"][1] == 608
    # The first: its logit is linear and changes its sign between the rows of the prototypes' corner values.
    assert (first is None) == (GOLDEN["sum_upsampled"][0] == 0)


def test_memory_is_that_of_one_mask_whatever_the_image():
    place = letterbox((3000, 4000), (640, 640))
    prototypes = np.ones((2, 160, 160), np.float32)
    boxes = np.array([[0, 0, 4000, 3000], [100, 100, 140, 130]], np.float32)

    tracemalloc.start()
    sizes = [mask.pixels.shape for mask in instance_masks(np.ones((2, 2), np.float32), prototypes, boxes, place)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert sizes == [(3000, 4000), (30, 40)]
    assert peak < 60e6  # float32 of the whole image alone would be 48 MB more than this


def test_a_mask_is_cut_to_its_pixels():
    pixels = np.zeros((5, 6), bool)
    pixels[1:3, 4] = True

    mask = cropped(pixels, 10, 20)

    assert (mask.left, mask.top, mask.pixels.tolist()) == (24, 11, [[True], [True]])
    assert cropped(np.zeros((3, 3), bool), 0, 0) is None
