# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The labels of a batch, and what assigners lay out of them before the step."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int32, Int64
from torch import Tensor

from boxwright.errors import ShapeError
from boxwright.structures.fields import expect_rank


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


Layout = Candidates | PriorMatches | ObjectRows


@dataclass(frozen=True, slots=True)
class Targets:
    """The labels of a batch, padded to M slots per image."""

    labels: Int64[Tensor, "B M"]  # class index, 0 in unused slots
    boxes: Float[Tensor, "B M box"]  # px xyxy, or px cx cy w h and radians
    valid: Bool[Tensor, "B M"]  # slot holds an object; never inferred from box values
    weights: Float[Tensor, "B M"] | None = None  # factor on all contributions of an object; divisors do not change
    instance_map: Int32[Tensor, "B h w"] | None = None  # 0 background, m + 1 for slot m; hidden parts are lost
    masks: Bool[Tensor, "B M h w"] | None = None  # per-instance encoding, for those who need hidden parts
    class_map: Int64[Tensor, "B h w"] | None = None  # semantic helper loss only
    keypoints: Float[Tensor, "B M K 3"] | None = None  # px x, px y, visibility 0, 1 or 2
    attributes: Mapping[str, Tensor] | None = None  # (B, M) int64, or (B, M, C_name) float; -1 is not labelled
    ignore: Float[Tensor, "B I 4"] | None = None  # px xyxy; unmatched candidates there cost nothing; zeros are padding
    # What `Criterion.prepare` laid out for its assigners, by kind; without it the step pays one host sync.
    prepared: Mapping[str, Layout] = field(default_factory=dict)

    def __post_init__(self) -> None:
        expect_rank("Targets.labels", self.labels, 2, "(B, M)")
        expect_rank("Targets.boxes", self.boxes, 3, "(B, M, 4)")
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
            **{
                f"attributes[{n!r}]": (labels, (batch, slots), labels.ndim)
                for n, labels in (self.attributes or {}).items()
            },
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

    @property
    def candidates(self) -> Candidates | None:
        """Cells inside each object, where they were laid out."""
        layout = self.prepared.get("candidates")
        return layout if isinstance(layout, Candidates) else None

    @property
    def prior_matches(self) -> PriorMatches | None:
        """Claims on priors, where they were laid out."""
        layout = self.prepared.get("prior_matches")
        return layout if isinstance(layout, PriorMatches) else None

    @property
    def objects(self) -> ObjectRows | None:
        """Slots that hold an object, where they were read."""
        layout = self.prepared.get("objects")
        return layout if isinstance(layout, ObjectRows) else None

    def with_prepared(self, **layouts: Layout) -> "Targets":
        """The targets with these layouts beside those they have."""
        return replace(self, prepared={**self.prepared, **layouts})

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
        # Which slots hold an object does not depend on the size.
        kept = {} if self.objects is None else {"objects": self.objects}
        return replace(self, boxes=boxes, keypoints=keypoints, ignore=ignore, prepared=kept)

    def to(self, device: torch.device | str) -> "Targets":
        """The same targets on another device."""
        moved: dict[str, Any] = {}
        for part in fields(self):
            value = getattr(self, part.name)
            if isinstance(value, Tensor):
                moved[part.name] = value.to(device, non_blocking=True)
        moved["prepared"] = {name: layout.to(device) for name, layout in self.prepared.items()}
        if self.attributes is not None:
            labels = self.attributes.items()
            moved["attributes"] = {name: values.to(device, non_blocking=True) for name, values in labels}
        return replace(self, **moved)
