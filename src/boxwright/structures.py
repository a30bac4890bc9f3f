# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The types that rooms hand to each other. Read this file first; it imports nothing of ours but the errors.

Letters, the same in every file: B images, M target slots per image (padded), A candidates (grid cells times priors of
all levels, or queries), P matched pairs, C classes, K keypoints, R distance bins, Q mask coefficients, N detections,
H W input pixels, h w mask grid. All types are frozen; nobody writes into their tensors.
Boxes are xyxy pixels of the network input unless a name says otherwise; oriented boxes are (cx, cy, w, h, theta) with
theta in radians.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int32, Int64
from torch import Tensor

from boxwright.errors import ShapeError


@dataclass(frozen=True, slots=True)
class Grid:
    """Candidate positions of a pyramid: level by level (fine to coarse), row by row, then by prior.

    With `prior_first` a level goes prior by prior and row by row inside each: the order of published YOLOv5 maps.
    """

    points: Float[Tensor, "A 2"]  # px, cell centres as (x, y)
    strides: Float[Tensor, " A"]  # px
    level: Int64[Tensor, " A"]
    shapes: tuple[tuple[int, int], ...]  # (rows, columns) of each level
    level_strides: tuple[int, ...]  # px, one per level
    prior_wh: Float[Tensor, "A 2"] | None = None  # px, anchor size of each candidate; None: one candidate per cell
    level_priors: tuple[tuple[tuple[float, float], ...], ...] = ()  # px, host copy of each level's (width, height)
    prior_first: bool = False
    first_level: int = 0  # pyramid index of the first level here, for grids that hold one level of several
    total_levels: int | None = None  # levels of the whole pyramid; None: those that are here

    @property
    def level_sizes(self) -> tuple[int, ...]:
        """Candidates of each level."""
        priors = self.level_priors or ((None,),) * len(self.shapes)
        return tuple(rows * columns * len(of) for (rows, columns), of in zip(self.shapes, priors, strict=True))

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) in pixels, from the finest level."""
        (rows, columns), stride = self.shapes[0], self.level_strides[0]
        return rows * stride, columns * stride


@dataclass(frozen=True, slots=True)
class Candidates:
    """Which grid cells lie inside which object, laid out on the host before the step (architecture idea 9).

    A cell is inside when its centre is. Inside cells of one object in one grid row are neighbours; they are cut into
    runs of a few cells (`losses.layout.candidates.RUN_CELLS`), ordered by object, level, row and column, so expanding
    the runs gives all (object, cell) pairs in the order image, slot, anchor.
    The plain numbers never leave the host: they give the step all its shapes, so it needs no sync.
    """

    objects: Int64[Tensor, " N"]  # image * M + slot of every object that holds a cell, ascending
    object_cells: Int64[Tensor, " N"]  # cells inside each
    object_runs: Int64[Tensor, " N"]  # runs of each
    run_first: Int64[Tensor, " S"]  # image * A + anchor of the first cell of each run
    run_length: Int64[Tensor, " S"]  # cells in each run
    cells: tuple[tuple[int, ...], ...]  # host copy of object_cells, by image
    runs_of: tuple[tuple[int, ...], ...]  # host copy of object_runs, by image
    slots: int  # M of the targets this was laid out for
    labels_below: int  # 1 + the largest label
    shapes: tuple[tuple[int, int], ...]  # grid this was laid out for
    level_strides: tuple[int, ...]
    min_side: float = 0.0  # px; sides shorter than this were widened to it, for the containment test only
    level_range: tuple[float, float] | None = None  # cells; levels on which an object's size lies outside were left out
    smallest_side: float = 0.0  # px; objects with a shorter side hold no cell
    swapped_sides: bool = False  # that test took widths in heights of the image and the reverse
    flat_objects: bool = False  # objects without area were not left out before the containment test
    oriented: bool = False

    @property
    def runs(self) -> tuple[int, ...]:
        """Number of runs of each image."""
        return tuple(map(sum, self.runs_of))

    @property
    def count(self) -> int:
        """Number of (object, cell) pairs in the batch."""
        return sum(map(sum, self.cells))

    def to(self, device: torch.device | str) -> "Candidates":
        """The same layout on another device."""
        names = ("objects", "object_cells", "object_runs", "run_first", "run_length")
        return replace(self, **{name: getattr(self, name).to(device, non_blocking=True) for name in names})


@dataclass(frozen=True, slots=True)
class ObjectRows:
    """Which slots hold an object, with host-known counts: set prediction and denoising queries take shapes from them.

    Rows go by image, then slot.
    """

    image: Int64[Tensor, " N"]
    slot: Int64[Tensor, " N"]
    counts: tuple[int, ...]  # objects of each image
    slots: int  # M of the targets this was read from
    labels_below: int  # 1 + the largest label

    def to(self, device: torch.device | str) -> "ObjectRows":
        """The same rows on another device."""
        return replace(self, **{name: getattr(self, name).to(device, non_blocking=True) for name in ("image", "slot")})


@dataclass(frozen=True, slots=True)
class Targets:
    """The labels of a batch, padded to M slots per image."""

    labels: Int64[Tensor, "B M"]  # class index, 0 in unused slots
    boxes: Float[Tensor, "B M box"]  # px xyxy, or px cx cy w h and radians
    valid: Bool[Tensor, "B M"]  # slot holds an object; never inferred from box values
    candidates: Candidates | None = None  # filled by `Criterion.prepare`; without it the step pays one host sync
    weights: Float[Tensor, "B M"] | None = None  # factor on all contributions of an object; divisors do not change
    instance_map: Int32[Tensor, "B h w"] | None = None  # 0 background, m + 1 for slot m; hidden parts are lost
    masks: Bool[Tensor, "B M h w"] | None = None  # per-instance encoding, for those who need hidden parts
    class_map: Int64[Tensor, "B h w"] | None = None  # semantic helper loss only
    keypoints: Float[Tensor, "B M K 3"] | None = None  # px x, px y, visibility 0, 1 or 2
    attributes: Mapping[str, Tensor] | None = None  # (B, M) int64, or (B, M, C_name) float; -1 is not labelled
    ignore: Float[Tensor, "B I 4"] | None = None  # px xyxy; unmatched candidates there cost nothing; zeros are padding
    prior_matches: "PriorMatches | None" = None  # filled by `Criterion.prepare` for anchor-based rules
    objects: ObjectRows | None = None  # filled by `Criterion.prepare` for set prediction

    def __post_init__(self) -> None:
        _expect("Targets.labels", self.labels, 2, "(B, M)")
        _expect("Targets.boxes", self.boxes, 3, "(B, M, 4)")
        batch, slots = self.labels.shape
        if tuple(self.boxes.shape) not in ((batch, slots, 4), (batch, slots, 5)):
            raise ShapeError(
                f"Targets.boxes: expected (B, M, 4) = ({batch}, {slots}, 4), or 5 numbers for oriented boxes, "
                f"got {tuple(self.boxes.shape)}"
            )
        if self.valid.shape != self.labels.shape or self.valid.dtype != torch.bool:
            raise ShapeError(
                f"Targets.valid: expected bool of shape {(batch, slots)}, "
                f"got {self.valid.dtype} {tuple(self.valid.shape)}"
            )
        if self.labels.dtype != torch.int64:
            raise ShapeError(f"Targets.labels: expected int64, got {self.labels.dtype}")
        self._check_extras(batch, slots)

    def _check_extras(self, batch: int, slots: int) -> None:
        parts: dict[str, tuple[Tensor | None, tuple[int, ...], int]] = {
            "weights": (self.weights, (batch, slots), 2),
            "instance_map": (self.instance_map, (batch,), 3),
            "masks": (self.masks, (batch, slots), 4),
            "class_map": (self.class_map, (batch,), 3),
            "keypoints": (self.keypoints, (batch, slots), 4),
            "ignore": (self.ignore, (batch,), 3),
            **{f"attributes[{name!r}]": (of, (batch, slots), of.ndim) for name, of in (self.attributes or {}).items()},
        }
        for name, (tensor, start, rank) in parts.items():
            if tensor is not None and (tensor.ndim != rank or tuple(tensor.shape[: len(start)]) != start):
                raise ShapeError(
                    f"Targets.{name}: expected {rank} axes that start with {start}, got {tuple(tensor.shape)}"
                )

    @property
    def oriented(self) -> bool:
        """Whether boxes are (cx, cy, w, h, theta)."""
        return self.boxes.shape[-1] == 5

    def scaled(self, across: float, down: float) -> "Targets":
        """The targets of images made `across` times as wide and `down` times as high; layouts have to be made anew.

        The angle of oriented boxes stays; masks and maps have their own grid.
        """
        pair = self.boxes.new_tensor((across, down))
        boxes = self.boxes.clone()
        boxes[..., :4] *= pair.repeat(2)
        keypoints = None if self.keypoints is None else self.keypoints.clone()
        if keypoints is not None:
            keypoints[..., :2] *= pair.to(keypoints.dtype)
        ignore = None if self.ignore is None else self.ignore * pair.repeat(2).to(self.ignore.dtype)
        return replace(self, boxes=boxes, keypoints=keypoints, ignore=ignore, candidates=None, prior_matches=None)

    def to(self, device: torch.device | str) -> "Targets":
        """The same targets on another device."""
        moved: dict[str, Any] = {}
        for of in fields(self):
            value = getattr(self, of.name)
            if isinstance(value, Tensor):
                moved[of.name] = value.to(device, non_blocking=True)
            elif isinstance(value, Mapping):
                moved[of.name] = {name: part.to(device, non_blocking=True) for name, part in value.items()}
            elif value is not None:
                moved[of.name] = value.to(device)
        return replace(self, **moved)


@dataclass(frozen=True, slots=True)
class PriorMatches:
    """Every claim of an object on a prior (anchor), laid out on the host before the step.

    Anchor-ratio matching depends on labels and anchors only. Rows are ordered level by level, and inside a level as the
    matcher emits them: direction, then prior, then image, then slot (spec/losses C.1).
    The plain numbers never leave the host: they give the step all its shapes, so it needs no sync.
    """

    image: Int64[Tensor, " P"]
    anchor: Int64[Tensor, " P"]  # candidate in the grid this was laid out for
    target: Int64[Tensor, " P"]  # slot
    level_rows: tuple[int, ...]  # rows of each level
    image_rows: tuple[tuple[int, ...], ...]  # rows of each image, by level
    slots: int  # M of the targets this was laid out for
    labels_below: int  # 1 + the largest label
    ratio: float  # limits it was laid out with
    bias: float
    first_level: int  # grid it was laid out for
    shapes: tuple[tuple[int, int], ...]
    level_strides: tuple[int, ...]
    level_priors: tuple[tuple[tuple[float, float], ...], ...]
    prior_first: bool

    def to(self, device: torch.device | str) -> "PriorMatches":
        """The same rows on another device."""
        names = ("image", "anchor", "target")
        return replace(self, **{name: getattr(self, name).to(device, non_blocking=True) for name in names})


@runtime_checkable  # the tests' run-time checks ask for it
class Decoder(Protocol):
    """Reads raw box outputs as boxes; its forms live in `ops/decode.py`."""

    def __call__(
        self,
        raw: Float[Tensor, "*n raw"],
        points: Float[Tensor, "*n 2"],
        strides: Float[Tensor, "*n"],
        extra: Float[Tensor, "*n"] | Float[Tensor, "*n 2"] | None = None,
    ) -> Float[Tensor, "*n box"]:
        """Boxes, px xyxy (oriented: px cx cy w h and radians), of raw outputs at grid points (px) with strides (px).

        `extra` is what a form needs beside: the angle of oriented boxes, the prior size (px) of anchor-based ones.
        """
        ...


@dataclass(frozen=True, slots=True)
class Assignment:
    """Who learns from whom: P pairs of image[p], candidate anchor[p] and target slot target[p]."""

    image: Int64[Tensor, " P"]
    anchor: Int64[Tensor, " P"]
    target: Int64[Tensor, " P"]
    valid: Bool[Tensor, " P"]  # P counts slots known on the host; the others are left out of every sum
    weight: Float[Tensor, " P"]  # soft quality in [0, 1]; 0 where not valid
    normalizer: Float[Tensor, ""]  # > 0; what sums of weights are divided by, summed over ranks
    all_valid: bool = False  # the host knows that no slot is unused, so nobody has to look at `valid`

    @property
    def share(self) -> Float[Tensor, " P"]:
        """Weight of each pair divided by the normalizer."""
        return self.weight / self.normalizer


@dataclass(frozen=True, slots=True)
class MatchedRows:
    """Raw outputs of the matched candidates, gathered once for all terms of a rule; at least float32, with gradient."""

    pairs: Assignment
    box_raw: Float[Tensor, "P raw"]
    shared: dict[str, Tensor] = field(default_factory=dict, compare=False)  # what a term computed that others read
    logits: Float[Tensor, "P C"] | None = None  # gathered only from a `Predictions.table`
    mask_coefs: Float[Tensor, "P Q"] | None = None
    objectness: Float[Tensor, "B A"] | None = None  # the whole plane, with the gradient that goes to the table
    keypoints: Float[Tensor, "P K D"] | None = None


@dataclass(frozen=True, slots=True)
class Predictions:
    """Raw outputs of one head (or decoder layer, or pyramid level) for a batch, and how to read them."""

    logits: Float[Tensor, "B A C"]  # raw class scores; may be a strided view of the head's maps
    box_raw: Float[Tensor, "B A raw"]
    decoder: Decoder
    grid: Grid | None = None  # None for queries
    role: str = "main"  # "main", "one2many", "one2one", "decoder", "encoder", "denoise"
    layer: int = 0
    matched: MatchedRows | None = None  # set by the criterion for the assignment its terms share
    input_size: tuple[int, int] | None = None  # (H, W) px, where there is no grid to tell
    exclusive: bool = False  # classes exclude one another: scores by softmax and not by sigmoid
    objectness: Float[Tensor, "B A"] | None = None  # raw
    # Rows (box_raw, objectness, logits, mask_coefs) of which the fields of those names are views: the loss then writes
    # one gradient for all of them.
    table: Float[Tensor, "B A columns"] | None = None
    mask_coefs: Float[Tensor, "B A Q"] | None = None
    prototypes: Float[Tensor, "B Q h w"] | None = None
    keypoints_raw: Float[Tensor, "B A K D"] | None = None  # D: x, y and, with 3, a raw visibility
    keypoint_form: Literal["doubled", "offset"] = "doubled"  # how raw x, y read, see `ops/keypoints.py`
    keypoint_scale: Float[Tensor, "B A K 2"] | None = None  # raw spread of each keypoint (newer pose heads)
    # Log density (n,) of residuals (n, 2) in spreads, learned with the head (newer pose heads).
    keypoint_density: Callable[[Tensor], Tensor] | None = None
    angle: Float[Tensor, "B A"] | None = None  # radians
    attribute_logits: Mapping[str, Tensor] | None = None  # name -> (B, A, C_name), raw
    semantic_logits: Float[Tensor, "B C semantic_h semantic_w"] | None = None  # helper head of newer segmenters
    known: Assignment | None = None  # pairs fixed by construction: denoising queries

    def __post_init__(self) -> None:
        _expect("Predictions.logits", self.logits, 3, "(B, A, C)")
        _expect("Predictions.box_raw", self.box_raw, 3, "(B, A, n)")
        batch = self.logits.shape[0]
        anchors = self.logits.shape[1] if self.grid is None else self.grid.points.shape[0]
        where = "" if self.grid is None else f" for the grid's {anchors} cells"
        parts: dict[str, Tensor | None] = {
            "logits": self.logits,
            "box_raw": self.box_raw,
            "objectness": self.objectness,
            "table": self.table,
            "mask_coefs": self.mask_coefs,
            "keypoints_raw": self.keypoints_raw,
            "keypoint_scale": self.keypoint_scale,
            "angle": self.angle,
            **{f"attribute_logits[{name!r}]": part for name, part in (self.attribute_logits or {}).items()},
        }
        for name, tensor in parts.items():
            if tensor is not None and tuple(tensor.shape[:2]) != (batch, anchors):
                raise ShapeError(
                    f"Predictions.{name}: expected (B, A, ...) = ({batch}, {anchors}, ...){where}, "
                    f"got {tuple(tensor.shape)}"
                )

    @property
    def cells(self) -> Grid:
        """The grid.

        Raises:
            ShapeError: these are queries, which have none.
        """
        if self.grid is None:
            raise ShapeError(f"Predictions.grid: expected the grid of a dense head, got None for role '{self.role}'")
        return self.grid

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) of the network input in pixels.

        Raises:
            ShapeError: neither a grid nor `input_size` tells.
        """
        if self.input_size is not None:
            return self.input_size
        if self.grid is None:
            raise ShapeError("Predictions.input_size: expected (H, W) in pixels for predictions without a grid")
        return self.grid.image_size

    @property
    def end_to_end(self) -> bool:
        """Whether the head learned to give each object once, so that nothing has to be suppressed."""
        return self.role in ("one2one", "decoder")

    @property
    def label(self) -> str:
        """Prefix of loss item names: the role, and the layer where there are several."""
        return self.role if self.layer == 0 else f"{self.role}{self.layer}"

    @property
    def boxes(self) -> Float[Tensor, "B A box"]:
        """Every candidate's box, px, decoded without gradient in at least float32."""
        return self.boxes_of(slice(None))

    def boxes_of(self, images: slice) -> Float[Tensor, "b A box"]:
        """Every candidate's box of some images, px, decoded without gradient in at least float32."""
        with torch.no_grad():
            raw = at_least_float32(self.box_raw[images])
            shape = raw.shape[:2]
            if self.grid is None:
                return self.decoder(raw, *self._size_as_cell(raw, shape))
            points = self.grid.points.to(raw.dtype).expand(*shape, 2)
            extra = self._extra((images,))
            return self.decoder(raw, points, self.grid.strides.to(raw.dtype).expand(shape), extra)

    def raw_at(self, pairs: Assignment) -> Float[Tensor, "P raw"]:
        """Raw outputs of the matched candidates, at least float32, with gradient; zeros where a pair is not valid."""
        if self.matched is not None and self.matched.pairs is pairs:
            return self.matched.box_raw
        return rows_at(self.box_raw, pairs)

    def logits_at(self, pairs: Assignment) -> Float[Tensor, "P C"]:
        """Class logits of the matched candidates, at least float32, with gradient; zeros where a pair is not valid."""
        if self.matched is not None and self.matched.pairs is pairs and self.matched.logits is not None:
            return self.matched.logits
        return rows_at(self.logits, pairs)

    def coefs_at(self, pairs: Assignment) -> Float[Tensor, "P Q"]:
        """Mask coefficients of the matched candidates, at least float32, with gradient; zeros where not valid.

        Raises:
            ShapeError: there are none.
        """
        if self.mask_coefs is None:
            raise ShapeError(f"Predictions.mask_coefs: expected (B, A, Q), got None for role '{self.role}'")
        if self.matched is not None and self.matched.pairs is pairs and self.matched.mask_coefs is not None:
            return self.matched.mask_coefs
        return rows_at(self.mask_coefs, pairs)

    def keypoints_at(self, pairs: Assignment) -> Float[Tensor, "P K D"]:
        """Raw keypoints of the matched candidates, at least float32, with gradient; zeros where a pair is not valid.

        Raises:
            ShapeError: there are none.
        """
        if self.keypoints_raw is None:
            raise ShapeError(f"Predictions.keypoints_raw: expected (B, A, K, D), got None for role '{self.role}'")
        if self.matched is not None and self.matched.pairs is pairs and self.matched.keypoints is not None:
            return self.matched.keypoints
        return rows_at(self.keypoints_raw, pairs)

    @property
    def objectness_plane(self) -> Float[Tensor, "B A"]:
        """Raw objectness of every candidate, at least float32, with gradient.

        Raises:
            ShapeError: there is none.
        """
        if self.objectness is None:
            raise ShapeError(f"Predictions.objectness: expected (B, A), got None for role '{self.role}'")
        if self.matched is not None and self.matched.objectness is not None:
            return self.matched.objectness
        return at_least_float32(self.objectness)

    def boxes_at(self, pairs: Assignment) -> Float[Tensor, "P box"]:
        """Boxes of the matched candidates, px, with gradient; a harmless constant where a pair is not valid."""
        angle = None if self.angle is None else rows_at(self.angle, pairs)
        return self.decode_rows(self.raw_at(pairs), pairs.anchor, angle)

    def decode_rows(
        self, raw: Float[Tensor, "P raw"], anchor: Int64[Tensor, " P"], angle: Float[Tensor, " P"] | None = None
    ) -> Float[Tensor, "P box"]:
        """Boxes, px, of raw rows of the given candidates; `angle` (radians) where the boxes are oriented."""
        if self.grid is None:
            return self.decoder(raw, *self._size_as_cell(raw, raw.shape[:1]))
        points, strides = self.grid.points[anchor].to(raw.dtype), self.grid.strides[anchor].to(raw.dtype)
        prior = None if self.grid.prior_wh is None else self.grid.prior_wh[anchor].to(raw.dtype)
        extra = prior if angle is None else angle
        return self.decoder(raw, points, strides) if extra is None else self.decoder(raw, points, strides, extra)

    def _extra(self, images: tuple[slice]) -> Tensor | None:
        if self.angle is not None:
            return at_least_float32(self.angle[images])
        if self.grid is None or self.grid.prior_wh is None:
            return None
        dtype = at_least_float32(self.box_raw[:0]).dtype
        return self.grid.prior_wh.to(dtype).expand(*self.box_raw[images].shape[:2], 2)

    def _size_as_cell(self, raw: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor]:
        """For queries a decoder's point is the image's (W, H) and its stride is 1."""
        height, width = self.image_size
        return raw.new_tensor((float(width), float(height))).expand(*shape, 2), raw.new_ones(()).expand(shape)


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a model returns: the predictions that inference reads, and extra ones that only training supervises."""

    final: Predictions
    auxiliary: tuple[Predictions, ...] = ()

    @property
    def detection(self) -> Predictions:
        """What inference, evaluation and export read: `final`, or all levels of a head that gives one for each level.

        Levels are joined, finest first; only a head whose `final.grid` says that it is one of several has any.
        """
        last = self.final
        if last.grid is None or last.grid.total_levels in (None, len(last.grid.shapes)):
            return last
        levels = [preds for preds in (*self.auxiliary, last) if preds.role == last.role and preds.grid is not None]
        return _joined_levels(sorted(levels, key=lambda preds: preds.cells.first_level))


@dataclass(frozen=True, slots=True)
class ImageTargets:
    """The labels of whole images: one class each, or one number in [0, 1] for every class; -1 is not labelled."""

    labels: Int64[Tensor, " B"] | Float[Tensor, "B C"]
    weights: Float[Tensor, " B"] | None = None  # factor on an image's contribution; divisors do not change

    def __post_init__(self) -> None:
        multi_label = self.labels.ndim == 2 and self.labels.is_floating_point()
        if not multi_label and (self.labels.ndim != 1 or self.labels.dtype != torch.int64):
            raise ShapeError(
                "ImageTargets.labels: expected int64 (B,), or floating point (B, C) for several labels per image, "
                f"got {self.labels.dtype} {tuple(self.labels.shape)}"
            )
        if self.weights is not None and self.weights.shape != self.labels.shape[:1]:
            raise ShapeError(
                f"ImageTargets.weights: expected {tuple(self.labels.shape[:1])}, got {tuple(self.weights.shape)}"
            )

    def to(self, device: torch.device | str) -> "ImageTargets":
        """The same targets on another device."""
        weights = None if self.weights is None else self.weights.to(device, non_blocking=True)
        return ImageTargets(self.labels.to(device, non_blocking=True), weights)


@dataclass(frozen=True, slots=True)
class ImageOutputs:
    """What a classifier returns for a batch of images."""

    logits: Float[Tensor, "B C"]  # raw class scores
    role: str = "main"

    def __post_init__(self) -> None:
        _expect("ImageOutputs.logits", self.logits, 2, "(B, C)")


@dataclass(frozen=True, slots=True)
class LossItem:
    """One term of one role: contributions are weighted and normalised, their sum is the term's value before gain."""

    name: str  # "main/box"
    contributions: Float[Tensor, "..."]  # (P,) or (B, A), or (B,) for a term on whole images
    gain: float  # of the term, times the scale of its rule at this point of the training


@dataclass(frozen=True, slots=True)
class LossBreakdown:
    """The loss of a step, in parts that sum to the total."""

    items: tuple[LossItem, ...]
    assignments: Mapping[str, Assignment]  # by `Predictions.label`
    scale: float | Float[Tensor, ""]  # images in the batch over all ranks (or 1) times the number of ranks

    @property
    def components(self) -> dict[str, Float[Tensor, ""]]:
        """Gain-weighted value of every item without the scale, of this rank's images: ranks add up to the batch's."""
        return {item.name: item.contributions.sum() * item.gain for item in self.items}

    @property
    def total(self) -> Float[Tensor, ""]:
        """Scale * sum of gain-weighted items: what `backward` is called on; its mean over ranks is the batch's loss.

        The number of ranks in the scale undoes the mean that DDP takes of the gradients.
        """
        return self.scale * torch.stack(list(self.components.values())).sum()

    def scalars(self) -> dict[str, float]:
        """Components and total as floats, for logs. Syncs with the device once."""
        components = self.components
        values = torch.stack([*components.values(), self.total]).detach().tolist()
        return dict(zip([*components, "total"], values, strict=True))


def at_least_float32(tensor: Tensor) -> Tensor:
    """The tensor in float32, or unchanged when it is already float32 or float64."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def rows_at(dense: Float[Tensor, "B A ..."], pairs: Assignment) -> Float[Tensor, "P ..."]:
    """dense[image, anchor] of every pair in at least float32, with gradient; zeros where a pair is not valid.

    An unused slot may point at any cell: its values must not reach a gradient (0 * inf is NaN).
    """
    rows = at_least_float32(dense[pairs.image, pairs.anchor])
    valid = pairs.valid.view(-1, *[1] * (rows.ndim - 1))
    return torch.where(valid, rows, torch.zeros_like(rows))


def _joined_levels(levels: Sequence[Predictions]) -> Predictions:
    """One `Predictions` of consecutive pyramid levels."""
    grids = [preds.cells for preds in levels]
    moved: dict[str, Any] = {
        "layer": 0,
        "matched": None,
        "grid": Grid(
            points=torch.cat([grid.points for grid in grids]),
            strides=torch.cat([grid.strides for grid in grids]),
            level=torch.cat([grid.level + grid.first_level for grid in grids]),
            shapes=sum((grid.shapes for grid in grids), ()),
            level_strides=sum((grid.level_strides for grid in grids), ()),
            prior_wh=_cat([grid.prior_wh for grid in grids], 0),
            level_priors=sum((grid.level_priors for grid in grids), ()),
            prior_first=grids[0].prior_first,
        ),
    }
    for name in ("logits", "box_raw", "objectness", "table", "mask_coefs", "keypoints_raw", "keypoint_scale", "angle"):
        moved[name] = _cat([getattr(preds, name) for preds in levels], 1)
    if levels[0].attribute_logits is not None:
        names = levels[0].attribute_logits
        moved["attribute_logits"] = {
            name: torch.cat([(preds.attribute_logits or {})[name] for preds in levels], 1) for name in names
        }
    return replace(levels[0], **moved)


def _cat(parts: Sequence[Tensor | None], axis: int) -> Tensor | None:
    held = [part for part in parts if part is not None]
    return torch.cat(held, axis) if held else None


def _expect(name: str, tensor: Tensor, rank: int, shape: str) -> None:
    if tensor.ndim != rank:
        raise ShapeError(f"{name}: expected {shape}, got {tuple(tensor.shape)}")
