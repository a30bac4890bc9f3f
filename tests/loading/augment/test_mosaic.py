# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import cv2
import numpy as np
import pytest

from boxwright.datasets.sample import Instances, Sample
from boxwright.loading.augment.geometry import Picture, Warp, draw_warp, keep_visible
from boxwright.loading.augment.mosaic import blend, centred_layout, draw_mosaic_layout, render
from boxwright.ops.letterbox import FILL

SIZE = 160


def photo(seed, height, width, boxes=((20, 30, 70, 90), (60, 40, 159, 119))):
    """A smooth random picture: two ways to interpolate it differ by a few grey levels at most."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 20, width // 20, 3), dtype=np.uint8)
    boxes = np.array(boxes, np.float32).reshape(-1, 4).clip(0, (width, height, width, height)).astype(np.float32)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return Sample(image, Instances(boxes, np.arange(len(boxes)) + 10 * seed), seed)


def picture_of(image, boxes, labels, areas):
    return Picture(image, Instances(boxes.astype(np.float32), labels), areas)


def four(seed=0):
    sizes = [(120, 160), (160, 100), (80, 160), (160, 160)]
    return [photo(seed * 4 + k, *size) for k, size in enumerate(sizes)]


def slow_mosaic(tiles, x, y, matrix, size):
    """Double-size canvas, one warp, boxes moved one corner at a time: the recipe, word for word."""
    side = 2 * size
    canvas = np.full((side, side, 3), FILL, np.uint8)
    rows = []
    for place, tile in enumerate(tiles):
        height, width = tile.image.shape[:2]
        left = x - width if place in (0, 2) else x
        top = y - height if place in (0, 1) else y
        for row in range(max(top, 0), min(top + height, side)):
            first, last = max(left, 0), min(left + width, side)
            canvas[row, first:last] = tile.image[row - top, first - left : last - left]
        for (x1, y1, x2, y2), label in zip(tile.instances.boxes.tolist(), tile.instances.labels, strict=True):
            x1, x2 = (min(max(v + left, 0), side) for v in (x1, x2))
            y1, y2 = (min(max(v + top, 0), side) for v in (y1, y2))
            if x2 > x1 and y2 > y1:
                corners = [matrix @ (px, py, 1) for px in (x1, x2) for py in (y1, y2)]
                xs, ys = [c[0] / c[2] for c in corners], [c[1] / c[2] for c in corners]
                rows.append((min(xs), min(ys), max(xs), max(ys), label, (x2 - x1) * (y2 - y1)))
    shift = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    centred = np.linalg.inv(shift) @ matrix @ shift
    image = cv2.warpPerspective(canvas, centred, (size, size), borderValue=(FILL, FILL, FILL))
    table = np.array(rows, np.float64).reshape(-1, 6)
    return image, table[:, :4], table[:, 4].astype(np.int64), table[:, 5]


def test_tiles_surround_the_centre():
    layout = draw_mosaic_layout(np.random.default_rng(0), four(), SIZE)

    x, y = layout.anchor
    assert layout.offsets == ((x - 160, y - 120), (x, y - 160), (x - 160, y), (x, y))
    assert layout.size == 2 * SIZE


def test_centres_are_uniform_over_the_middle_half():
    rng = np.random.default_rng(0)
    centres = np.array([draw_mosaic_layout(rng, four(), SIZE).anchor for _ in range(3000)])

    assert centres.min() == 80
    assert centres.max() == 239
    assert np.abs(centres.mean(0) - 159.5).max() < 4 * 160 / 12**0.5 / 3000**0.5
    assert abs(np.corrcoef(centres.T)[0, 1]) < 0.08


@pytest.mark.parametrize("seed", range(12))
def test_rotated_mosaic_equals_the_slow_reference(seed):
    rng = np.random.default_rng(seed)
    tiles = four(seed)
    layout = draw_mosaic_layout(rng, tiles, SIZE)
    warp = draw_warp(rng, 2 * SIZE, SIZE, degrees=40.0, translate=0.1, scale=0.5, shear=5.0)

    picture = render(layout, warp, SIZE)

    image, boxes, labels, areas = slow_mosaic(tiles, *layout.anchor, warp.matrix, SIZE)
    # Boxes are float32: half a unit in the last place of 640 px is 3e-5 px, on the canvas and again in the output.
    np.testing.assert_allclose(picture.objects.boxes, boxes, atol=1e-4)
    assert picture.objects.labels.tolist() == labels.tolist()
    np.testing.assert_allclose(picture.areas, areas, rtol=1e-6)
    # warpAffine and warpPerspective round positions to 1/32 px each in their own way.
    difference = np.abs(picture.image.astype(int) - image)
    assert difference.mean() < 0.5
    assert np.quantile(difference, 0.99) <= 4


@pytest.mark.parametrize("seed", range(40))
def test_direct_mosaic_equals_the_slow_reference(seed):
    rng = np.random.default_rng(seed)
    tiles = four(seed)
    layout = draw_mosaic_layout(rng, tiles, SIZE)
    warp = draw_warp(rng, 2 * SIZE, SIZE, translate=0.1, scale=0.5)
    assert warp.axis_aligned

    picture = render(layout, warp, SIZE)

    image, boxes, labels, areas = slow_mosaic(tiles, *layout.anchor, warp.matrix, SIZE)
    expected = keep_visible(picture_of(image, boxes, labels, areas), warp.scale).objects
    found = keep_visible(picture, warp.scale).objects
    # Boxes near a limit of the filter may fall on either side of it: demand those well inside.
    well_inside = keep_visible(picture_of(image, boxes, labels, areas * 1.5), warp.scale).objects
    clear = {n for n, box in zip(well_inside.labels, well_inside.boxes, strict=True) if min(box[2:] - box[:2]) > 6}
    assert clear <= set(found.labels.tolist())
    for box, label in zip(found.boxes, found.labels, strict=True):
        if label in clear:
            # Edges of tiles snap to whole output and source pixels: half of each, times up to 1.5.
            assert np.abs(box - expected.boxes[expected.labels == label][0]).max() < 1.3
    # Away from seams the pictures agree up to that shift; they are smooth, 20 px from knot to knot.
    difference = np.abs(picture.image.astype(int) - image).mean()
    assert difference < 4.5


def test_direct_mosaic_is_exact_where_nothing_has_to_snap():
    tiles = four()
    layout = draw_mosaic_layout(np.random.default_rng(4), tiles, SIZE)
    matrix = np.array([[1, 0, -73.0], [0, 1, -91], [0, 0, 1]])

    picture = render(layout, Warp(matrix, 1.0), SIZE)

    image, boxes, labels, areas = slow_mosaic(tiles, *layout.anchor, matrix, SIZE)
    np.testing.assert_array_equal(picture.image, image)
    expected = keep_visible(picture_of(image, boxes, labels, areas), 1.0).objects
    np.testing.assert_array_equal(keep_visible(picture, 1.0).objects.boxes, expected.boxes)


@pytest.mark.parametrize("seed", range(60))
def test_boxes_stay_on_their_objects(seed):
    """Red rectangles on black photographs: each kept box fits its rectangle in the output to the pixel."""
    rng = np.random.default_rng(seed)
    tiles = []
    for k in range(4):
        height, width = [(120, 160), (160, 100), (80, 160), (160, 160)][k]
        x1, y1 = int(rng.integers(4, width - 60)), int(rng.integers(4, height - 60))
        x2, y2 = x1 + int(rng.integers(20, 50)), y1 + int(rng.integers(20, 50))
        image = np.zeros((height, width, 3), np.uint8)
        image[y1:y2, x1:x2, 0] = 255
        tiles.append(Sample(image, Instances(np.array([[x1, y1, x2, y2]], np.float32), np.array([k])), k))
    layout = draw_mosaic_layout(rng, tiles, SIZE)
    warp = draw_warp(rng, 2 * SIZE, SIZE, translate=0.1, scale=0.5)

    picture = keep_visible(render(layout, warp, SIZE), warp.scale)

    redness = picture.image[..., 0].astype(int) - picture.image[..., 1]
    for box in picture.objects.boxes:
        x1, y1, x2, y2 = np.round(box).astype(int)
        assert (redness[y1 + 1 : y2 - 1, x1 + 1 : x2 - 1] == 255).all()
        top, left = max(y1 - 2, 0), max(x1 - 2, 0)
        rows, columns = np.nonzero(redness[top : y2 + 2, left : x2 + 2] > 127)
        extent = [left + columns.min(), top + rows.min(), left + columns.max() + 1, top + rows.max() + 1]
        # Half a pixel of rounding, and a little for the fixed-point weights of the resize.
        assert np.abs(extent - box).max() <= 0.6


@pytest.mark.parametrize("degrees", [0.0, 20.0])
def test_single_image_is_letterboxed_then_moved(degrees):
    tile = photo(3, 80, 160)
    layout = centred_layout(tile, SIZE)

    still = render(layout, draw_warp(np.random.default_rng(0), SIZE, SIZE), SIZE)
    moved = render(layout, draw_warp(np.random.default_rng(0), SIZE, SIZE, degrees=degrees, scale=0.5), SIZE)

    np.testing.assert_array_equal(still.image[40:120], tile.image)
    assert (still.image[:40] == FILL).all()
    np.testing.assert_array_equal(still.objects.boxes, tile.instances.boxes + np.array([0, 40, 0, 40]))
    assert moved.objects.labels.tolist() == tile.instances.labels.tolist()


def test_tiles_without_objects_or_out_of_sight():
    tiles = [photo(k, 160, 160, boxes=()) for k in range(4)]
    layout = draw_mosaic_layout(np.random.default_rng(0), tiles, SIZE)
    far = Warp(np.array([[1, 0, -4 * SIZE], [0, 1, 0], [0, 0, 1.0]]), 1.0)

    picture = render(layout, far, SIZE)

    assert picture.objects.boxes.shape == (0, 4)
    assert (picture.image == FILL).all()


def test_blend_truncates_and_keeps_all_labels():
    rng = np.random.default_rng(0)
    pictures = [
        picture_of(
            rng.integers(0, 256, (20, 30, 3), dtype=np.uint8), np.full((2, 4), k), np.full(2, k), np.full(2, 9.0)
        )
        for k in range(2)
    ]

    mixed = blend(*pictures, 0.375)

    expected = (pictures[0].image * 0.375 + pictures[1].image * 0.625).astype(np.uint8)  # eighths: exact in float
    np.testing.assert_array_equal(mixed.image, expected)
    assert mixed.objects.labels.tolist() == [0, 0, 1, 1]
    assert mixed.objects.boxes[:, 0].tolist() == [0, 0, 1, 1]
