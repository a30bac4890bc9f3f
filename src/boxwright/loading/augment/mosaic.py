# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Several images in one: four tiles around a random centre (mosaic), two images blended (mixup).

A `TileLayout` says where tiles lie on a canvas that is never drawn when the warp only scales and shifts: then the
visible part of each tile is resized straight into the output, one resample instead of a double-size canvas and a warp.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import UInt8

from boxwright.datasets.instances import Matrix, cut, move, scaling
from boxwright.datasets.sample import Instances, Sample, join_instances
from boxwright.loading.augment.geometry import Picture, Warp, warp_image
from boxwright.ops.letterbox import FILL, letterbox


@dataclass(frozen=True, slots=True)
class TileLayout:
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

    def move_from(self, offset: int) -> tuple[float, float]:
        """Scale and shift from canvas to output pixels, for a tile at `offset` on the canvas."""
        scale = (self.end - self.start) / (self.source_end - self.source)
        return scale, self.start - (offset + self.source) * scale


def draw_mosaic_layout(rng: np.random.Generator, tiles: Sequence[Sample], imgsz: int) -> TileLayout:
    """Four tiles around a random point of a canvas of twice the side: top left and right, bottom left and right."""
    y = int(rng.uniform(imgsz / 2, 3 * imgsz / 2))
    x = int(rng.uniform(imgsz / 2, 3 * imgsz / 2))
    offsets = []
    for place, tile in enumerate(tiles):
        height, width = tile.image.shape[:2]
        offsets.append((x - (width if place % 2 == 0 else 0), y - (height if place < 2 else 0)))
    return TileLayout(2 * imgsz, (x, y), tuple(tiles), tuple(offsets))


def centred_layout(tile: Sample, imgsz: int) -> TileLayout:
    """One image in the middle of a square canvas, as letterboxing places it."""
    height, width = tile.image.shape[:2]
    box = letterbox((height, width), (imgsz, imgsz), scaleup=False)
    return TileLayout(imgsz, (box.left, box.top), (tile,), ((box.left, box.top),))


def render(layout: TileLayout, warp: Warp, size: int) -> Picture:
    """The layout moved by `warp` into size x size pixels, with the objects that have an area on the canvas.

    What leaves the canvas is cut; what leaves the output is not. Only pixels are read from the tiles; the result is
    new memory.
    """
    canvas = [_on_canvas(layout, place) for place in range(len(layout.tiles))]
    render_tiles = _render_direct if warp.axis_aligned else _render_canvas
    image, matrices = render_tiles(layout, warp.matrix, size)
    seen = [(objects, of) for objects, of in zip(canvas, matrices, strict=True) if of is not None]
    objects = join_instances([move(part, matrix) for part, matrix in seen])
    before = np.concatenate([np.zeros((0, 4)), *(part.boxes for part, _ in seen)])
    return Picture(image, objects, (before[:, 2] - before[:, 0]) * (before[:, 3] - before[:, 1]))


def blend(first: Picture, second: Picture, share: float) -> Picture:
    """Both pictures in one: `share` of the first, the rest of the second, truncated to 8 bit; all labels of both.

    Source: mixup, Zhang et al. 2018, arXiv:1710.09412; without label weights, as the YOLO recipes have it.
    """
    # addWeighted rounds; just under half less makes it truncate.
    image = cv2.addWeighted(first.image, share, second.image, 1 - share, -0.4999)
    areas = np.concatenate((first.areas, second.areas))
    return Picture(image, join_instances((first.objects, second.objects)), areas)


def _on_canvas(layout: TileLayout, place: int) -> Instances:
    """Objects of one tile on the canvas, cut to it."""
    moved = move(layout.tiles[place].instances, scaling((1.0, 1.0), layout.offsets[place]))
    return cut(moved, (0, 0, layout.size, layout.size))


def _render_canvas(
    layout: TileLayout, matrix: Matrix, size: int
) -> tuple[UInt8[np.ndarray, "s s 3"], list[Matrix | None]]:
    canvas = np.full((layout.size, layout.size, 3), FILL, np.uint8)
    for tile, (x, y) in zip(layout.tiles, layout.offsets, strict=True):
        height, width = tile.image.shape[:2]
        top, left = max(-y, 0), max(-x, 0)
        visible = tile.image[top : layout.size - y, left : layout.size - x]
        canvas[y + top : min(y + height, layout.size), x + left : min(x + width, layout.size)] = visible
    return warp_image(canvas, matrix, size), [matrix] * len(layout.tiles)


def _render_direct(
    layout: TileLayout, matrix: Matrix, size: int
) -> tuple[UInt8[np.ndarray, "s s 3"], list[Matrix | None]]:
    """Resizes each tile's visible part into place; returns how each tile moved, None where nothing of it is seen.

    Deviation: the edges of a tile snap to whole pixels, so it moves by less than 1 px plus one source pixel against the
    drawn matrix; its objects move with it.
    """
    output = np.full((size, size, 3), FILL, np.uint8)
    matrices: list[Matrix | None] = []
    for tile, (x, y) in zip(layout.tiles, layout.offsets, strict=True):
        height, width = tile.image.shape[:2]
        across = _span(width, x, layout, 0, matrix, size)
        down = _span(height, y, layout, 1, matrix, size)
        if across is None or down is None:
            matrices.append(None)
            continue
        source = tile.image[down.source : down.source_end, across.source : across.source_end]
        target = output[down.start : down.end, across.start : across.end]
        cv2.resize(source, target.shape[1::-1], dst=target, interpolation=cv2.INTER_LINEAR)
        (scale_x, shift_x), (scale_y, shift_y) = across.move_from(x), down.move_from(y)
        matrices.append(scaling((scale_x, scale_y), (shift_x, shift_y)))
    return output, matrices


def _span(length: int, offset: int, layout: TileLayout, axis: int, matrix: Matrix, size: int) -> Span | None:
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
