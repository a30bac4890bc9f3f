# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Raw outputs of a model, and how to read them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from boxwright.errors import ShapeError
from boxwright.structures.fields import at_least_float32, expect_rank
from boxwright.structures.grid import Grid
from boxwright.structures.pairs import Assignment, rows_at


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
class MatchedRows:
    """Raw outputs of the matched candidates, gathered once for all terms of a rule; at least float32, with gradient."""

    pairs: Assignment
    box_raw: Float[Tensor, "P raw"]
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
        expect_rank("Predictions.logits", self.logits, 3, "(B, A, C)")
        expect_rank("Predictions.box_raw", self.box_raw, 3, "(B, A, n)")
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
        return rows_at(self.box_raw, pairs)

    def logits_at(self, pairs: Assignment) -> Float[Tensor, "P C"]:
        """Class logits of the matched candidates, at least float32, with gradient; zeros where a pair is not valid."""
        return rows_at(self.logits, pairs)

    def coefs_at(self, pairs: Assignment) -> Float[Tensor, "P Q"]:
        """Mask coefficients of the matched candidates, at least float32, with gradient; zeros where not valid.

        Raises:
            ShapeError: there are none.
        """
        if self.mask_coefs is None:
            raise ShapeError(f"Predictions.mask_coefs: expected (B, A, Q), got None for role '{self.role}'")
        return rows_at(self.mask_coefs, pairs)

    def keypoints_at(self, pairs: Assignment) -> Float[Tensor, "P K D"]:
        """Raw keypoints of the matched candidates, at least float32, with gradient; zeros where a pair is not valid.

        Raises:
            ShapeError: there are none.
        """
        if self.keypoints_raw is None:
            raise ShapeError(f"Predictions.keypoints_raw: expected (B, A, K, D), got None for role '{self.role}'")
        return rows_at(self.keypoints_raw, pairs)

    @property
    def objectness_plane(self) -> Float[Tensor, "B A"]:
        """Raw objectness of every candidate, at least float32, with gradient.

        Raises:
            ShapeError: there is none.
        """
        if self.objectness is None:
            raise ShapeError(f"Predictions.objectness: expected (B, A), got None for role '{self.role}'")
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


def _joined_levels(levels: Sequence[Predictions]) -> Predictions:
    """One `Predictions` of consecutive pyramid levels."""
    grids = [preds.cells for preds in levels]
    moved: dict[str, Any] = {
        "layer": 0,
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
