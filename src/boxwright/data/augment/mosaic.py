# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Several images in one: four tiles around a random centre (mosaic), two images blended (mixup).

A `Layout` says where tiles lie on a canvas that is never drawn when the warp only scales and shifts: then each tile's
visible part is resized straight into the output, one resample instead of a double-size canvas and a warp.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float64, UInt8

from boxwright.data.augment.geometry import Matrix, Picture, Warp, warp_boxes, warp_image
from boxwright.data.sample import Sample
from boxwright.ops.letterbox import FILL, letterbox

TileBoxes = Float64[np.ndarray, "_ 4"]  # px xyxy; every tile has its own number of them


@dataclass(frozen=True, slots=True)
class Layout:
    """Tiles on a square grey canvas; what lies outside is cut."""

    size: int  # px, side of the canvas
    anchor: tuple[int, int]  # (x, y) px, the point where tiles meet
    tiles: tuple[Sample, ...]
    offsets: tuple[tuple[int, int], ...]  # (x, y) px of each tile's top left corner; may be negative


@dataclass(frozen=True, slots=True)
class Span:
    """Along one axis: tile pixels [source, source_end) fill output pixels [start, end)."""

    source: int
    source_end: int
    start: int
    end: int

    def move(self, values: np.ndarray) -> np.ndarray:
        """Tile coordinates in output pixels."""
        return (values - self.source) * ((self.end - self.start) / (self.source_end - self.source)) + self.start


def draw_mosaic_layout(rng: np.random.Generator, tiles: Sequence[Sample], imgsz: int) -> Layout:
    """Four tiles around a random point of a canvas of twice the side: top left and right, bottom left and right."""
    y = int(rng.uniform(imgsz / 2, 3 * imgsz / 2))
    x = int(rng.uniform(imgsz / 2, 3 * imgsz / 2))
    offsets = []
    for place, tile in enumerate(tiles):
        height, width = tile.image.shape[:2]
        offsets.append((x - (width if place % 2 == 0 else 0), y - (height if place < 2 else 0)))
    return Layout(2 * imgsz, (x, y), tuple(tiles), tuple(offsets))


def centred_layout(tile: Sample, imgsz: int) -> Layout:
    """One image in the middle of a square canvas, as letterboxing places it."""
    height, width = tile.image.shape[:2]
    box = letterbox((height, width), (imgsz, imgsz), scaleup=False)
    return Layout(imgsz, (box.left, box.top), (tile,), ((box.left, box.top),))


def render(layout: Layout, warp: Warp, size: int) -> Picture:
    """The layout moved by `warp` into size x size pixels, with the boxes that have an area on the canvas, not clipped.

    Only pixels are read from the tiles; the result is new memory.
    """
    render_tiles = _render_direct if warp.axis_aligned else _render_canvas
    canvas = [_on_canvas(layout, place) for place in range(len(layout.tiles))]
    image, moved = render_tiles(layout, canvas, warp.matrix, size)
    before, boxes = np.concatenate(canvas), np.concatenate(moved)
    labels = np.concatenate([tile.instances.labels for tile in layout.tiles])
    areas = (before[:, 2] - before[:, 0]) * (before[:, 3] - before[:, 1])
    keep = areas > 0  # clipping left no negative sides
    return Picture(image, boxes[keep], labels[keep], areas[keep])


def blend(first: Picture, second: Picture, share: float) -> Picture:
    """Both pictures in one: `share` of the first, the rest of the second, truncated to 8 bit; all labels of both.

    Source: mixup, Zhang et al. 2018, arXiv:1710.09412; without label weights, as the YOLO recipes have it.
    """
    # addWeighted rounds; just under half less makes it truncate.
    image = cv2.addWeighted(first.image, share, second.image, 1 - share, -0.4999)
    return Picture(
        image,
        np.concatenate((first.boxes, second.boxes)),
        np.concatenate((first.labels, second.labels)),
        np.concatenate((first.areas, second.areas)),
    )


def _on_canvas(layout: Layout, place: int) -> TileBoxes:
    """Boxes of one tile on the canvas, clipped to it."""
    x, y = layout.offsets[place]
    shift = np.array([x, y, x, y], np.float64)
    return (layout.tiles[place].instances.boxes + shift).clip(0, layout.size)


def _render_canvas(
    layout: Layout, canvas_boxes: list[TileBoxes], matrix: Matrix, size: int
) -> tuple[UInt8[np.ndarray, "s s 3"], list[TileBoxes]]:
    canvas = np.full((layout.size, layout.size, 3), FILL, np.uint8)
    for tile, (x, y) in zip(layout.tiles, layout.offsets, strict=True):
        height, width = tile.image.shape[:2]
        top, left = max(-y, 0), max(-x, 0)
        visible = tile.image[top : layout.size - y, left : layout.size - x]
        canvas[y + top : min(y + height, layout.size), x + left : min(x + width, layout.size)] = visible
    return warp_image(canvas, matrix, size), [warp_boxes(boxes, matrix) for boxes in canvas_boxes]


def _render_direct(
    layout: Layout, canvas_boxes: list[TileBoxes], matrix: Matrix, size: int
) -> tuple[UInt8[np.ndarray, "s s 3"], list[TileBoxes]]:
    """Resizes each tile's visible part into place.

    Deviation: the edges of a tile snap to whole pixels, so it moves by less than 1 px plus one source pixel against the
    drawn matrix; its boxes move with it.
    """
    output = np.full((size, size, 3), FILL, np.uint8)
    moved = []
    for tile, (x, y), boxes in zip(layout.tiles, layout.offsets, canvas_boxes, strict=True):
        height, width = tile.image.shape[:2]
        across = _span(width, x, layout, 0, matrix, size)
        down = _span(height, y, layout, 1, matrix, size)
        if across is None or down is None:
            moved.append(np.zeros_like(boxes))
            continue
        source = tile.image[down.source : down.source_end, across.source : across.source_end]
        target = output[down.start : down.end, across.start : across.end]
        cv2.resize(source, target.shape[1::-1], dst=target, interpolation=cv2.INTER_LINEAR)
        placed = np.empty_like(boxes)
        placed[:, 0::2], placed[:, 1::2] = across.move(boxes[:, 0::2] - x), down.move(boxes[:, 1::2] - y)
        moved.append(placed)
    return output, moved


def _span(length: int, offset: int, layout: Layout, axis: int, matrix: Matrix, size: int) -> Span | None:
    """What an axis of a tile shows in the output, or None."""
    scale, shift = float(matrix[axis, axis]), float(matrix[axis, 2])
    first, last = max(offset, 0), min(offset + length, layout.size)  # on the canvas
    start, end = (min(max(round(scale * edge + shift), 0), size) for edge in (first, last))
    if end <= start:
        return None
    # Where the output cuts the tile, the source pixels that fall on its edge; elsewhere the tile's own edge.
    source = first if start > 0 else min(max(round(-shift / scale), first), last - 1)
    source_end = last if end < size else max(min(round((size - shift) / scale), last), source + 1)
    return Span(source - offset, source_end - offset, start, end)
