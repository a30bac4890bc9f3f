# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Large images cut into overlapping tiles, with the objects that are mostly inside each.

Source: spec/datasets 5; Xia et al. 2018, DOTA (crops of 1024 px, 200 px apart less than their side).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np

from boxwright.datasets.convert import (
    WRITERS,
    ConversionReport,
    Progress,
    fill_folder,
    read_source,
    step_by_step,
    written_format,
)
from boxwright.datasets.formats.job import Part
from boxwright.datasets.formats.shapes import (
    MIN_INSIDE,
    box_corners,
    clip_polygon,
    convex_hull,
    extent,
    polygon_area,
    share_inside,
    smallest_rectangle,
)
from boxwright.datasets.images import read_image
from boxwright.datasets.instances import Area, cut_rest, map_outlines, move, scaling
from boxwright.datasets.policy import DataConfig, ImagePolicy
from boxwright.datasets.sample import Instances, Polygons, Record
from boxwright.errors import DataError
from boxwright.vocabulary import TASKS, TaskName

_DEFAULT = DataConfig()
_NEAR = 1e-6  # of a share: float32 coordinates of an object that is inside to the last pixel


@dataclass(frozen=True, slots=True)
class Tiling:
    """How images are cut."""

    size: int = 1024  # px, side of a tile
    gap: int = 200  # px that neighbours share, so that an object cut by one is whole in another
    keep: float = 0.7  # share of an object's area that must lie in a tile to be labelled there

    def __post_init__(self) -> None:
        """Refuses what cuts nothing."""
        if self.size < 32:
            raise DataError(f"tile: size: expected at least 32 px, got {self.size}")
        if not 0 <= self.gap < self.size:
            raise DataError(f"tile: gap: expected 0 to {self.size - 1} px (less than the size), got {self.gap}")
        if not 0 < self.keep <= 1:
            raise DataError(f"tile: keep: expected more than 0 and at most 1, got {self.keep:g}")


@dataclass(frozen=True, slots=True)
class TilingReport:
    """What was cut and what the tiles hold."""

    tiling: Tiling
    written: ConversionReport
    sources: int  # images before
    tiles: int  # images after; those of several splits once
    whole: int  # of these, images that fitted a tile and are copied as they are
    parts_dropped: int  # parts of objects in a tile that hold too little of them
    in_no_tile: int  # objects that no tile holds enough of

    def lines(self) -> tuple[str, ...]:
        """The report in words."""
        least = f"{self.tiling.keep * 100:g} %"
        first, *rest = self.written.lines()
        return (
            f"{self.sources} images, {self.whole} of them not larger than a tile, became {self.tiles} images of at "
            f"most {self.tiling.size} px that share {self.tiling.gap} px",
            first,
            f"parts of objects not labelled (a tile holds less than {least} of the object): {self.parts_dropped}",
            f"objects that are labelled in no tile (none holds {least} of them): {self.in_no_tile}",
            *rest,
        )


@dataclass(slots=True)
class _Cutting:
    """One run over a dataset."""

    tiling: Tiling
    policy: ImagePolicy
    crops: dict[Path, tuple[Path, Area]] = field(default_factory=dict)  # of each tile: its image and its place
    whole: int = 0
    dropped: int = 0
    nowhere: int = 0
    _last: tuple[Path, np.ndarray] | None = None  # decoded image: its tiles are written one after another

    def tiles_of(self, record: Record) -> Iterator[Record]:
        areas = list(tile_areas(record.size, self.tiling))
        if len(areas) == 1:
            self.whole += 1
            yield record
            return
        objects = record.instances
        seen = np.zeros(len(objects), np.bool_)
        for area in areas:
            part, kept, touched = objects_inside(objects, area, self.tiling.keep)
            seen[kept] = True
            self.dropped += touched - len(kept)
            x1, y1, x2, y2 = (int(value) for value in area)
            # Below the image's own path: no two images share it, whatever their suffixes.
            place = record.image / f"{record.image.stem}__{x1}_{y1}.png"
            self.crops[place] = record.image, area
            yield Record(place, (y2 - y1, x2 - x1), part)
        self.nowhere += int((~seen).sum())

    def put(self, tile: Path, target: Path) -> bool:
        """Writes the pixels of a tile; False for an image that is no tile."""
        if tile not in self.crops:
            return False
        image, area = self.crops[tile]
        if self._last is None or self._last[0] != image:
            self._last = image, read_image(image, self.policy)
        x1, y1, x2, y2 = (int(value) for value in area)
        pixels = self._last[1][y1:y2, x1:x2]
        done, data = cv2.imencode(".png", np.ascontiguousarray(pixels[..., ::-1]))
        assert done  # three channels of eight bits
        target.write_bytes(data.tobytes())
        return True


def tile_dataset(
    source: str | Path,
    destination: str | Path,
    tiling: Tiling,
    *,
    to: str | None = None,
    task: TaskName | None = None,
    config: DataConfig = _DEFAULT,
    on_progress: Progress | None = None,
) -> TilingReport:
    """Cuts the images of a dataset into overlapping tiles, in a new folder, and says what no tile holds.

    Tiles are PNG, the pixels of the source as training sees them; an image that fits a tile is copied as it is. `to` is
    the format to write; None takes the source's, or COCO where that one cannot be written. Otherwise as
    `convert_dataset`.

    Raises:
        DataError: as `convert_dataset`, or the labels are those of whole images.
    """
    chosen = None if to is None else written_format("tile", to)
    read = read_source(source, destination, task, config, on_progress)
    if TASKS[read.task].whole_image:
        raise DataError("tile: a label of a whole image says nothing about its parts; expected labels of objects")
    form = chosen or WRITERS.get(read.header.format, WRITERS["coco"])
    cutting = _Cutting(tiling, config.image)
    parts = [
        Part(part.splits, tuple(tile for record in part.records for tile in cutting.tiles_of(record)))
        for part in read.parts
    ]
    folder = Path(destination).expanduser()
    tiles = sum(len(part.records) for part in parts)
    advance = step_by_step(on_progress, tiles, "cutting")
    lost, result = fill_folder(read, folder, form, "copy", parts, advance, cutting.put)
    written = ConversionReport(
        Path(source), result, read.header.format, form.name, read.task,
        {split: len(part.records) for part in parts for split in part.splits},
        sum(len(record.instances) for part in parts for record in part.records), {**read.left_out, **lost},
        read.not_read,
    )  # fmt: skip
    return TilingReport(tiling, written, read.images, tiles, cutting.whole, cutting.dropped, cutting.nowhere)


def tile_areas(size: tuple[int, int], tiling: Tiling) -> Iterator[Area]:
    """Where the tiles of an image of (height, width) px lie, px xyxy, row by row; the last ones end with the image.

    >>> list(tile_areas((100, 150), Tiling(size=100, gap=20)))
    [(0, 0, 100, 100), (50, 0, 150, 100)]
    """
    height, width = size
    for top in _starts(height, tiling):
        for left in _starts(width, tiling):
            yield left, top, min(left + tiling.size, width), min(top + tiling.size, height)


def _starts(length: int, tiling: Tiling) -> list[int]:
    last = max(length - tiling.size, 0)
    return [*range(0, last, tiling.size - tiling.gap), last]


def objects_inside(objects: Instances, area: Area, keep: float) -> tuple[Instances, np.ndarray, int]:
    """The objects of a tile in its own pixels, which ones they are, and how many touch it at all.

    Kept are those with at least `keep` of their area inside: outlines are clipped, oriented boxes fitted again to what
    is left of them, boxes drawn around it, keypoints outside become unlabelled. An oriented box that no label file can
    hold, because it would stick out of the tile too far, is not kept either.
    """
    x1, y1, x2, y2 = area
    size = int(y2 - y1), int(x2 - x1)
    shift = scaling((1, 1), (-x1, -y1))
    near = (objects.boxes[:, :2] < (x2, y2)).all(1) & (objects.boxes[:, 2:] > (x1, y1)).all(1)
    moved = move(objects, shift)
    rows = np.flatnonzero(near)
    cuts = [_cut(moved, row, size) for row in rows.tolist()]
    enough = np.array([one.share >= keep - _NEAR for one in cuts], np.bool_)
    touched = sum(one.share > 0 for one in cuts)
    kept = rows[enough]
    chosen = [one for one, good in zip(cuts, enough.tolist(), strict=True) if good]
    inside = cut_rest(replace(moved.take(kept), ignore=None), (0, 0, size[1], size[0]))
    inside = replace(inside, ignore=moved.ignore)
    return _regions(_with_cuts(inside, chosen), objects, shift, size), kept, touched


@dataclass(frozen=True, slots=True)
class _Cut:
    """What is left of one object in a tile."""

    share: float  # of its area; 0 where it cannot be labelled
    box: tuple[float, float, float, float]
    outline: Polygons = ()
    corners: np.ndarray | None = None


def _cut(objects: Instances, row: int, size: tuple[int, int]) -> _Cut:
    outline = objects.polygons[row] if objects.polygons is not None else ()
    if objects.corners is not None:
        return replace(_cut_oriented(objects.corners[row].astype(np.float64), size), outline=_clip(outline, size))
    if outline:
        return _cut_outline(outline, size)
    box = objects.boxes[row].astype(np.float64)
    left = clip_polygon(box_corners(box.tolist()), float(size[1]), float(size[0]))
    return _Cut(_share(left, polygon_area(box_corners(box.tolist()))), _around(left))


def _cut_oriented(corners: np.ndarray, size: tuple[int, int]) -> _Cut:
    share = share_inside(corners, size)
    if share == 1:
        return _Cut(1.0, extent(corners), corners=corners)
    left = clip_polygon(convex_hull(corners), float(size[1]), float(size[0]))
    if len(left) < 3:
        return _Cut(0.0, _around(left))
    fitted = smallest_rectangle(left)
    return _Cut(share if share_inside(fitted, size) >= MIN_INSIDE else 0.0, extent(left), corners=fitted)


def _cut_outline(outline: Polygons, size: tuple[int, int]) -> _Cut:
    inside = _clip(outline, size)
    if not inside:
        return _Cut(0.0, _around(np.zeros((0, 2))))
    whole = sum(polygon_area(part) for part in outline)
    left = sum(polygon_area(part) for part in inside)
    return _Cut(left / whole if whole > 0 else 0.0, extent(np.concatenate(inside)), outline=inside)


def _share(left: np.ndarray, whole: float) -> float:
    return polygon_area(left) / whole if len(left) > 2 and whole > 0 else 0.0


def _around(points: np.ndarray) -> tuple[float, float, float, float]:
    return extent(points) if len(points) else (0.0, 0.0, 0.0, 0.0)


def _with_cuts(objects: Instances, cuts: list[_Cut]) -> Instances:
    changed = replace(objects, boxes=np.array([one.box for one in cuts], np.float32).reshape(-1, 4))
    if objects.corners is not None:
        corners = [np.asarray(one.corners) for one in cuts]
        changed = replace(changed, corners=np.array(corners, np.float32).reshape(-1, 4, 2))
    if objects.polygons is not None:
        changed = replace(changed, polygons=tuple(one.outline for one in cuts))
    if objects.areas is not None:
        changed = replace(changed, areas=objects.areas * np.array([one.share for one in cuts], np.float32))
    return changed


def _regions(moved: Instances, objects: Instances, shift: np.ndarray, size: tuple[int, int]) -> Instances:
    """The ignore regions of a tile with their shapes; `cut_rest` would cut their boxes only."""
    if moved.ignore is None:
        return moved
    height, width = size
    boxes = moved.ignore.clip(0, (width, height, width, height)).astype(np.float32)
    keep = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    shapes = objects.ignore_outlines
    if shapes is not None:
        placed = map_outlines(shapes, lambda points: points + shift[:2, 2])
        cut = [_clip(one, size) for one in placed]
        keep &= np.array([bool(after) or not before for before, after in zip(shapes, cut, strict=True)], np.bool_)
        shapes = tuple(one for one, good in zip(cut, keep.tolist(), strict=True) if good)
    labels = None if moved.ignore_labels is None else moved.ignore_labels[keep]
    return replace(moved, ignore=boxes[keep], ignore_labels=labels, ignore_outlines=shapes)


def _clip(outline: Polygons, size: tuple[int, int]) -> Polygons:
    parts = (clip_polygon(part.astype(np.float64), float(size[1]), float(size[0])) for part in outline)
    return tuple(part.astype(np.float32) for part in parts if len(part) > 2)
