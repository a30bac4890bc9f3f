# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Which objects can never be learned at an image size, by the geometry of an assigner alone: no weights, no images.

Counts are closed forms over all labels at once. Images are placed as in validation, without augmentation: training
moves and scales them, so an object that is lost here is met now and then there (`Learnable.luck`), and one at the limit
is lost now and then.

Source: containment spec/losses C.2, anchors spec/losses C.1, letterbox spec/architectures 6.1.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64, Int64

from boxwright.auditor.labels import SplitLabels
from boxwright.loading.autoanchor import AnchorReport, Anchors, check_anchors
from boxwright.table import Table

BORDER = 1e-9  # px; a centre on the border of an axis-aligned box is outside, as in `losses.layout.strips`
LARGEST = 4096  # px; image sizes beyond it are not tried
TRIED_SIZES = (*range(32, 1280, 32), *range(1280, 2048, 64), *range(2048, LARGEST + 1, 128))  # px
TRIED = 50_000  # lost objects that image sizes are tried on, evenly spread; more do not move the shares
SHARES = (0.5, 0.9, 1.0)
SIZES = ((0.0, 8.0), (8.0, 16.0), (16.0, 32.0), (32.0, 96.0), (96.0, np.inf))  # px, sqrt(w h) in the network input

Fit = Literal["letterbox", "stretch", "crop"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CellRule:
    """Objects learn from the cells whose centres lie inside their boxes, as `TaskAligned` lays them out."""

    strides: tuple[int, ...]  # px, fine to coarse
    asked: int = 10  # candidates an object wants (topk)
    min_side: float | Literal["second_stride"] = 0.0  # px; shorter sides are widened to it
    smallest_side: float = 0.0  # px; objects with a shorter side take no cell
    level_range: tuple[float, float] | None = None  # cells; see `TaskAligned.level_range`

    @property
    def widened_to(self) -> float:
        """Px."""
        if isinstance(self.min_side, str):
            return float(self.strides[min(1, len(self.strides) - 1)])
        return self.min_side


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorRule:
    """Objects learn from anchors of nearly their size, in the cells around their centres, as `AnchorRatio` does."""

    strides: tuple[int, ...]
    anchors: Anchors  # px, by level
    ratio: float = 4.0
    bias: float = 0.5  # cells

    @property
    def asked(self) -> int:
        """One anchor is enough to be learned."""
        return 1


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryRule:
    """Each object is matched with a query of its own: only their number is a limit."""

    queries: int

    @property
    def asked(self) -> int:
        """One query."""
        return 1


Rule = CellRule | PriorRule | QueryRule


@dataclass(frozen=True, slots=True)
class Setting:
    """How a model would see the images."""

    rule: Rule
    imgsz: int = 640
    fit: Fit = "letterbox"
    model: str = ""  # as the report names it
    role: str = "main"  # of the criterion's rule, for the names of settings


@dataclass(frozen=True, slots=True)
class Remedy:
    """What would help, measured on the same labels."""

    what: str  # "image size 960", "a level of stride 4", ...
    setting: str  # how to get it, "" where it takes another model
    need: int  # candidates that count as helped
    helped: int
    of: int
    lost_after: int  # objects of the split without any candidate then


@dataclass(frozen=True, slots=True)
class Learnable:
    """Candidates of every object of a split; N objects, L levels."""

    setting: Setting
    levels: Int64[np.ndarray, "N L"]  # candidates on each level
    side: Float64[np.ndarray, " N"]  # px of the network input, sqrt(width * height)
    luck: Float64[np.ndarray, " N"]  # chance of a candidate on the finest level at a random position
    remedies: tuple[Remedy, ...] = ()
    anchors: AnchorReport | None = None

    @property
    def candidates(self) -> Int64[np.ndarray, " N"]:
        """Of each object."""
        counts: np.ndarray = self.levels.sum(axis=1)
        return counts

    @property
    def lost(self) -> Bool[np.ndarray, " N"]:
        """No candidate at all."""
        none: np.ndarray = self.candidates == 0
        return none

    @property
    def few(self) -> Bool[np.ndarray, " N"]:
        """Some, but fewer than the assigner asks for."""
        return (self.candidates > 0) & (self.candidates < self.setting.rule.asked)


def placed(labels: SplitLabels, imgsz: int, fit: Fit) -> Float64[np.ndarray, "N 4"]:
    """Boxes in px of a square network input, as `ops.letterbox` places their images."""
    scale, offset = _placing(labels, imgsz, fit)
    boxes: np.ndarray = labels.boxes * scale + offset
    return boxes


def _resized(sizes: np.ndarray, imgsz: int, fit: Fit) -> np.ndarray:
    if fit == "stretch":
        return np.full_like(sizes, imgsz)
    ratio = (imgsz / sizes).min(axis=1)[:, None]
    resized: np.ndarray = np.maximum(np.rint(sizes * ratio), 1).astype(np.int64)
    return resized


def _placing(labels: SplitLabels, imgsz: int, fit: Fit) -> tuple[np.ndarray, np.ndarray]:
    """Of each object's image, for (x, y, x, y): the scale, and where it begins, px."""
    resized = _resized(labels.sizes, imgsz, fit)
    gain = resized / np.maximum(labels.sizes, 1)
    start = np.rint((imgsz - resized) / 2 - 0.1)
    columns = [1, 0, 1, 0]
    return gain[:, columns][labels.image], start[:, columns][labels.image]


def count_candidates(labels: SplitLabels, setting: Setting) -> Int64[np.ndarray, "N L"]:
    """Candidates of every object on each level (queries: 1 or 0, in one column)."""
    rule = setting.rule
    if isinstance(rule, QueryRule):
        return _queries(labels, rule)
    box = placed(labels, setting.imgsz, setting.fit)
    if isinstance(rule, PriorRule):
        return _anchors(box, rule, setting.imgsz)
    if labels.corners is not None:
        return _oriented(labels, rule, setting)
    return _cells(box, rule, setting.imgsz)


def _cells(box: np.ndarray, rule: CellRule, imgsz: int) -> np.ndarray:
    wh = box[:, 2:] - box[:, :2]
    wide = np.maximum(wh, rule.widened_to)
    centre = (box[:, :2] + box[:, 2:]) / 2
    low, high = (centre - wide / 2, centre + wide / 2) if rule.widened_to else (box[:, :2], box[:, 2:])
    counts = np.empty((len(box), len(rule.strides)), np.int64)
    for level, stride in enumerate(rule.strides):
        cells = imgsz // stride
        first = np.clip(np.floor((low + BORDER) / stride - 0.5) + 1, 0, cells)
        end = np.clip(np.ceil((high - BORDER) / stride - 0.5), 0, cells)
        counts[:, level] = np.maximum(end - first, 0).prod(axis=1)
    counts[(wh <= 0).any(axis=1) | (wh < rule.smallest_side).any(axis=1)] = 0
    return counts if rule.level_range is None else _in_range(counts, wh, rule)


def _in_range(counts: np.ndarray, wh: np.ndarray, rule: CellRule) -> np.ndarray:
    assert rule.level_range is not None
    cells = np.sqrt(np.maximum(wh.prod(axis=1), 0))[:, None] / np.array(rule.strides, np.float64)
    allowed = (cells >= rule.level_range[0]) & (cells <= rule.level_range[1])
    allowed[:, 0] = cells[:, 0] <= rule.level_range[1]
    allowed[:, -1] = cells[:, -1] >= rule.level_range[0]
    if len(rule.strides) == 1:
        allowed[:] = True
    held = (counts * allowed).any(axis=1)
    return np.where(allowed | ~held[:, None], counts, 0)


def _oriented(labels: SplitLabels, rule: CellRule, setting: Setting) -> np.ndarray:
    """By the strips that training lays out; these take torch."""
    from boxwright.losses.layout.strips import level_cells, rotated_strips
    from boxwright.ops.grid import grid_for_image

    assert labels.corners is not None
    scale, offset = _placing(labels, setting.imgsz, setting.fit)
    corners = labels.corners * scale[:, None, :2] + offset[:, None, :2]
    along, across = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 1]
    sides = np.stack((np.hypot(*along.T), np.hypot(*across.T)), axis=1)
    wide = np.maximum(sides, rule.widened_to)
    box = np.concatenate((corners.mean(axis=1), wide, np.arctan2(along[:, 1], along[:, 0])[:, None]), axis=1)
    grid = grid_for_image((setting.imgsz, setting.imgsz), rule.strides)
    parts = [
        level_cells(rotated_strips(part, grid), len(part), grid)
        for part in np.array_split(box, max(1, len(box) // 20_000))
    ]
    counts = np.concatenate(parts)
    counts[(sides <= 0).any(axis=1) | (sides < rule.smallest_side).any(axis=1)] = 0
    return counts if rule.level_range is None else _in_range(counts, sides, rule)


def _anchors(box: np.ndarray, rule: PriorRule, imgsz: int) -> np.ndarray:
    wh = box[:, 2:] - box[:, :2]
    counts = np.zeros((len(box), len(rule.strides)), np.int64)
    for level, (stride, anchors) in enumerate(zip(rule.strides, rule.anchors, strict=True)):
        fits = np.zeros(len(box), np.int64)
        for anchor in anchors:
            with np.errstate(divide="ignore"):
                share = wh / np.array(anchor)
                fits += np.maximum(share, 1 / share).max(axis=1) < rule.ratio
        centre = (box[:, :2] + box[:, 2:]) / 2 / stride
        left = imgsz // stride - centre
        near = ((centre % 1 < rule.bias) & (centre > 1)).sum(axis=1) + ((left % 1 < rule.bias) & (left > 1)).sum(axis=1)
        counts[:, level] = fits * (1 + near)
    counts[(wh <= 0).any(axis=1)] = 0
    return counts


def _queries(labels: SplitLabels, rule: QueryRule) -> np.ndarray:
    per_image = labels.per_image
    starts = np.cumsum(per_image) - per_image
    place = np.arange(len(labels)) - starts[labels.image]
    counts: np.ndarray = (place < rule.queries).astype(np.int64)[:, None]
    return counts


def learnable(labels: SplitLabels, setting: Setting) -> Learnable:
    """Who has candidates, and what would help those that have too few."""
    counts = count_candidates(labels, setting)
    scale = _placing(labels, setting.imgsz, setting.fit)[0][:, :2]
    wh = labels.wh * (scale if labels.corners is None else scale.mean(axis=1, keepdims=True))
    rule = setting.rule
    luck = np.ones(len(labels))
    if isinstance(rule, CellRule):
        luck = np.minimum(np.maximum(wh, rule.widened_to) / rule.strides[0], 1).prod(axis=1)
    elif isinstance(rule, PriorRule):
        luck = (counts.sum(axis=1) > 0).astype(np.float64)  # position plays no part
    found = Learnable(setting, counts, np.sqrt(np.maximum(wh.prod(axis=1), 0)), luck)
    anchors = check_anchors(wh, rule.anchors, ratio=rule.ratio) if isinstance(rule, PriorRule) and len(wh) else None
    return replace(found, remedies=tuple(_remedies(labels, found, anchors)), anchors=anchors)


def by_class_and_size(labels: SplitLabels, found: Learnable) -> Table:
    """One row for each class, each size in the network input, and each class at each size that occurs."""
    asked = found.setting.rule.asked
    size = sizes_of(found.side)
    classes, sizes = len(labels.names), len(SIZES)
    cell = labels.labels * sizes + size
    columns = [
        np.bincount(cell, weights=of, minlength=classes * sizes).reshape(classes, sizes)
        for of in (np.ones(len(cell)), found.lost, found.few, found.candidates)
    ]
    rows: list[tuple[str, str, list[float]]] = [("all", "all", [float(part.sum()) for part in columns])]
    rows += [("all", size_words(i), [float(part[:, i].sum()) for part in columns]) for i in range(sizes)]
    for index, name in enumerate(labels.names):
        rows.append((name, "all", [float(part[index].sum()) for part in columns]))
        rows += [(name, size_words(i), [float(part[index, i]) for part in columns]) for i in range(sizes)]
    rows = [row for row in rows if row[2][0] or row[1] == "all"]
    numbers = np.array([row[2] for row in rows]).reshape(-1, 4)
    return Table(
        {
            "split": [labels.split] * len(rows),
            "class": [row[0] for row in rows],
            "size": [row[1] for row in rows],
            "objects": numbers[:, 0].astype(np.int64),
            "no_candidate": numbers[:, 1].astype(np.int64),
            "fewer_than_asked": numbers[:, 2].astype(np.int64),
            "asked": [asked] * len(rows),
            "candidates_mean": numbers[:, 3] / np.maximum(numbers[:, 0], 1),
        }
    )


def sizes_of(side: np.ndarray) -> np.ndarray:
    """The size class of each side, an index into SIZES."""
    return np.searchsorted([high for _, high in SIZES[:-1]], side, side="right")


def size_words(index: int) -> str:
    """A size class in words.

    >>> [size_words(i) for i in (0, 1, 4)]
    ['below 8 px', '8 to 16 px', '96 px and more']
    """
    low, high = SIZES[index]
    if not low:
        return f"below {high:g} px"
    return f"{low:g} px and more" if np.isinf(high) else f"{low:g} to {high:g} px"


# -- what would help -----------------------------------------------------------------------------------------------


def _remedies(labels: SplitLabels, found: Learnable, anchors: AnchorReport | None) -> list[Remedy]:
    setting, rule = found.setting, found.setting.rule
    if isinstance(rule, QueryRule):
        most = int(labels.per_image.max(initial=0))
        if most <= rule.queries:
            return []
        lost = int(found.lost.sum())
        return [Remedy(f"{most} queries", f"model.head.queries={most}", 1, lost, lost, 0)]
    made: list[Remedy] = []
    needs = (1, rule.asked) if rule.asked > 1 else (1,)
    for need in needs:
        chosen = np.flatnonzero(found.candidates < need)
        if not len(chosen):
            continue
        measure = _Tally(labels, chosen, need)
        made += _larger_images(measure, setting)
        if isinstance(rule, CellRule):
            if min(rule.strides) > 4:
                finer = replace(setting, rule=replace(rule, strides=(4, *rule.strides)))
                made.append(measure("a level of stride 4", "", finer))
            if not rule.widened_to:
                wider = replace(setting, rule=replace(rule, min_side="second_stride"))
                words = f"small boxes widened to {rule.strides[min(1, len(rule.strides) - 1)]} px"
                made.append(measure(words, f"criterion.rules.{setting.role}.assigner.min_side=second_stride", wider))
        elif anchors is not None and anchors.changed:
            fitted = replace(setting, rule=replace(rule, anchors=anchors.anchors))
            made.append(measure("anchors fitted to these labels", "train.autoanchor=true (the default)", fitted))
    return made


@dataclass(frozen=True, slots=True)
class _Tally:
    """How many of some objects a change helps."""

    labels: SplitLabels
    chosen: np.ndarray
    need: int

    def __call__(self, what: str, how: str, setting: Setting) -> Remedy:
        counts = count_candidates(self.labels, setting).sum(axis=1)
        helped = int((counts[self.chosen] >= self.need).sum())
        return Remedy(what, how, self.need, helped, len(self.chosen), int((counts == 0).sum()))

    def share(self) -> Callable[[Setting], float]:
        """What part of them has enough, measured on at most TRIED of them."""
        rows = self.chosen
        if len(rows) > TRIED:
            rows = rows[np.linspace(0, len(rows) - 1, TRIED).astype(np.int64)]
        some = some_objects(self.labels, rows)
        return lambda setting: float((count_candidates(some, setting).sum(axis=1) >= self.need).mean())


def some_objects(labels: SplitLabels, rows: np.ndarray) -> SplitLabels:
    """Some rows (ascending) of the columns, with their images only."""
    used, image = np.unique(labels.image[rows], return_inverse=True)
    return replace(
        labels,
        images=tuple(labels.images[i] for i in used.tolist()),
        sizes=labels.sizes[used],
        boxes=labels.boxes[rows],
        labels=labels.labels[rows],
        image=image.astype(np.int64),
        corners=None if labels.corners is None else labels.corners[rows],
        image_labels=None if labels.image_labels is None else labels.image_labels[used],
    )


def _larger_images(measure: _Tally, setting: Setting) -> list[Remedy]:
    """The smallest image sizes at which 50, 90 and 100 % of the objects have enough candidates."""
    share, wanted, made = measure.share(), list(SHARES), []
    for imgsz in (size for size in TRIED_SIZES if size > setting.imgsz):
        larger = replace(setting, imgsz=imgsz)
        reached = share(larger)
        hit = [part for part in wanted if reached >= part]
        if hit:
            made.append(measure(f"image size {imgsz}", f"data.imgsz={imgsz}", larger))
            wanted = [part for part in wanted if reached < part]
        if not wanted:
            break
    return made
