# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The types that rooms hand to each other. Read this file first; it imports nothing of ours but the errors.

Letters, the same in every file: B images, M target slots per image (padded), A candidates (grid cells of all levels),
P matched pairs, C classes, R distance bins, N detections, H W input pixels. All types are frozen; nobody writes into
their tensors.
Boxes are xyxy pixels of the network input unless a name says otherwise.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from boxwright.errors import ShapeError


@dataclass(frozen=True, slots=True)
class Grid:
    """Candidate positions of a pyramid: level by level (fine to coarse), row by row."""

    points: Float[Tensor, "A 2"]  # px, cell centres as (x, y)
    strides: Float[Tensor, " A"]  # px
    level: Int64[Tensor, " A"]
    shapes: tuple[tuple[int, int], ...]  # (rows, columns) of each level
    level_strides: tuple[int, ...]  # px, one per level

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) in pixels, from the finest level."""
        (rows, columns), stride = self.shapes[0], self.level_strides[0]
        return rows * stride, columns * stride


@dataclass(frozen=True, slots=True)
class Candidates:
    """Which grid cells lie inside which object, laid out on the host before the step (architecture idea 9).

    A cell is inside when its centre is. Inside cells of one object in one grid row are neighbours; they are cut into
    runs of a few cells (`ops.candidates.RUN_CELLS`), ordered by object, level, row and column, so expanding the runs
    gives all (object, cell) pairs in the order image, slot, anchor.
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
class Targets:
    """The labels of a batch, padded to M slots per image."""

    labels: Int64[Tensor, "B M"]  # class index, 0 in unused slots
    boxes: Float[Tensor, "B M 4"]  # px xyxy
    valid: Bool[Tensor, "B M"]  # slot holds an object; never inferred from box values
    candidates: Candidates | None = None  # filled by `Criterion.prepare`; without it the step pays one host sync

    def __post_init__(self) -> None:
        _expect("Targets.labels", self.labels, 2, "(B, M)")
        _expect("Targets.boxes", self.boxes, 3, "(B, M, 4)")
        batch, slots = self.labels.shape
        if tuple(self.boxes.shape) != (batch, slots, 4):
            raise ShapeError(
                f"Targets.boxes: expected (B, M, 4) = ({batch}, {slots}, 4), got {tuple(self.boxes.shape)}"
            )
        if self.valid.shape != self.labels.shape or self.valid.dtype != torch.bool:
            raise ShapeError(
                f"Targets.valid: expected bool of shape {(batch, slots)}, "
                f"got {self.valid.dtype} {tuple(self.valid.shape)}"
            )
        if self.labels.dtype != torch.int64:
            raise ShapeError(f"Targets.labels: expected int64, got {self.labels.dtype}")

    def to(self, device: torch.device | str) -> "Targets":
        """The same targets on another device."""
        return replace(
            self,
            labels=self.labels.to(device, non_blocking=True),
            boxes=self.boxes.to(device, non_blocking=True),
            valid=self.valid.to(device, non_blocking=True),
            candidates=None if self.candidates is None else self.candidates.to(device),
        )


@runtime_checkable  # the tests' run-time checks ask for it
class Decoder(Protocol):
    """Reads raw box outputs as boxes; its forms live in `ops/decode.py`."""

    def __call__(
        self, raw: Float[Tensor, "*n raw"], points: Float[Tensor, "*n 2"], strides: Float[Tensor, "*n"]
    ) -> Float[Tensor, "*n 4"]:
        """Boxes, px xyxy, of raw outputs at grid points (px) with strides (px)."""
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

    @property
    def share(self) -> Float[Tensor, " P"]:
        """Weight of each pair divided by the normalizer."""
        return self.weight / self.normalizer


@dataclass(frozen=True, slots=True)
class MatchedRows:
    """Raw box outputs of the matched candidates, gathered once for all terms of a rule."""

    pairs: Assignment
    box_raw: Float[Tensor, "P raw"]  # at least float32, with gradient


@dataclass(frozen=True, slots=True)
class Predictions:
    """Raw outputs of one head (or decoder layer) for a batch, and how to read them."""

    logits: Float[Tensor, "B A C"]  # raw class scores; may be a strided view of the head's maps
    box_raw: Float[Tensor, "B A raw"]
    decoder: Decoder
    grid: Grid
    role: str = "main"  # "main", "one2many", "one2one", ...
    layer: int = 0
    matched: MatchedRows | None = None  # set by the criterion for the assignment its terms share

    def __post_init__(self) -> None:
        _expect("Predictions.logits", self.logits, 3, "(B, A, C)")
        _expect("Predictions.box_raw", self.box_raw, 3, "(B, A, n)")
        anchors = self.grid.points.shape[0]
        for name, tensor in (("logits", self.logits), ("box_raw", self.box_raw)):
            if tensor.shape[1] != anchors or tensor.shape[0] != self.logits.shape[0]:
                raise ShapeError(
                    f"Predictions.{name}: expected (B, A, ...) = ({self.logits.shape[0]}, {anchors}, ...) "
                    f"for the grid's {anchors} cells, got {tuple(tensor.shape)}"
                )

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) of the network input in pixels."""
        return self.grid.image_size

    @property
    def label(self) -> str:
        """Prefix of loss item names: the role, and the layer where there are several."""
        return self.role if self.layer == 0 else f"{self.role}{self.layer}"

    @property
    def boxes(self) -> Float[Tensor, "B A 4"]:
        """Every candidate's box, px xyxy, decoded without gradient in at least float32."""
        return self.boxes_of(slice(None))

    def boxes_of(self, images: slice) -> Float[Tensor, "b A 4"]:
        """Every candidate's box of some images, px xyxy, decoded without gradient in at least float32."""
        with torch.no_grad():
            raw = at_least_float32(self.box_raw[images])
            shape = raw.shape[:2]
            points = self.grid.points.to(raw.dtype).expand(*shape, 2)
            return self.decoder(raw, points, self.grid.strides.to(raw.dtype).expand(shape))

    def raw_at(self, pairs: Assignment) -> Float[Tensor, "P raw"]:
        """Raw outputs of the matched candidates, at least float32, with gradient; zeros where a pair is not valid."""
        if self.matched is not None and self.matched.pairs is pairs:
            return self.matched.box_raw
        raw = at_least_float32(self.box_raw[pairs.image, pairs.anchor])
        # An unused slot may point at any cell: its values must not reach a gradient (0 * inf is NaN).
        return torch.where(pairs.valid[:, None], raw, torch.zeros_like(raw))

    def boxes_at(self, pairs: Assignment) -> Float[Tensor, "P 4"]:
        """Boxes of the matched candidates, px xyxy, with gradient; a harmless constant where a pair is not valid."""
        raw = self.raw_at(pairs)
        points, strides = self.grid.points[pairs.anchor], self.grid.strides[pairs.anchor]
        return self.decoder(raw, points.to(raw.dtype), strides.to(raw.dtype))


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a model returns: the predictions that inference reads, and extra ones that only training supervises."""

    final: Predictions
    auxiliary: tuple[Predictions, ...] = ()


@dataclass(frozen=True, slots=True)
class LossItem:
    """One term of one role: contributions are weighted and normalised, their sum is the term's value before gain."""

    name: str  # "main/box"
    contributions: Float[Tensor, "..."]  # (P,) or (B, A)
    gain: float


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


@dataclass(frozen=True, slots=True)
class GroundTruth:
    """The labels of one image as evaluation reads them: px xyxy of the ORIGINAL image."""

    boxes: Float[Tensor, "N 4"]
    labels: Int64[Tensor, " N"]
    image_size: tuple[int, int]  # (height, width) of the original image, px


@dataclass(frozen=True, slots=True)
class Detections:
    """What was found in one image: px of the ORIGINAL image, best first."""

    boxes: Float[Tensor, "N 4"]  # px xyxy
    scores: Float[Tensor, " N"]
    labels: Int64[Tensor, " N"]  # index into names
    names: tuple[str, ...]
    image_size: tuple[int, int]  # (height, width) of the original image, px
    class_ids: tuple[int, ...] | None = None  # the dataset's own id of each class, where it differs from the index
    path: str | None = None  # where the image came from

    def __len__(self) -> int:
        return self.boxes.shape[0]

    def to_dicts(self) -> list[dict[str, Any]]:
        """One plain dict per detection: name, label, class_id, score and box (px x1, y1, x2, y2)."""
        ids = self.class_ids or tuple(range(len(self.names)))
        rows = zip(self.boxes.tolist(), self.scores.tolist(), self.labels.tolist(), strict=True)
        return [
            {"name": self.names[label], "label": label, "class_id": ids[label], "score": score, "box": box}
            for box, score, label in rows
        ]

    def to_coco(self, image_id: int | str) -> list[dict[str, Any]]:
        """COCO result rows: bbox as x, y, width, height in px; category_id is the dataset's own class id."""
        return [
            {
                "image_id": image_id,
                "category_id": row["class_id"],
                "bbox": [round(v, 3) for v in _xywh(row["box"])],
                "score": round(row["score"], 5),
            }
            for row in self.to_dicts()
        ]

    def to_supervision(self) -> Any:
        """The same as `supervision.Detections`.

        Raises:
            ImportError: the `supervision` package is not installed.
        """
        import numpy as np
        import supervision

        return supervision.Detections(
            xyxy=self.boxes.cpu().numpy().astype(np.float32).reshape(-1, 4),
            confidence=self.scores.cpu().numpy().astype(np.float32),
            class_id=self.labels.cpu().numpy().astype(int),
            data={"class_name": np.array([self.names[i] for i in self.labels.tolist()], dtype=str)},
        )


def at_least_float32(tensor: Tensor) -> Tensor:
    """The tensor in float32, or unchanged when it is already float32 or float64."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _xywh(box: list[float]) -> list[float]:
    x1, y1, x2, y2 = box
    return [x1, y1, x2 - x1, y2 - y1]


def _expect(name: str, tensor: Tensor, rank: int, shape: str) -> None:
    if tensor.ndim != rank:
        raise ShapeError(f"{name}: expected {shape}, got {tuple(tensor.shape)}")
