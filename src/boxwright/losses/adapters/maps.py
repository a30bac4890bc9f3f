# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Raw maps of a dense head with distances from the cell centre (YOLOv8-like), as another code base has them in hand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Shaped
from torch import Tensor

from boxwright.errors import ShapeError
from boxwright.losses.adapters.checks import check_kind, check_levels, check_shape, check_size, check_strides
from boxwright.ops.decode import Distance, Oriented
from boxwright.ops.grid import grid_for_image
from boxwright.ops.kept_grid import grid_like
from boxwright.ops.keypoints import KeypointForm
from boxwright.structures import Grid, Outputs, Predictions


def from_yolov8_maps(
    maps: Sequence[Shaped[Tensor, "..."]],
    strides: Sequence[int],
    *,
    num_classes: int,
    num_bins: int = 16,
    image_size: tuple[int, int] | None = None,
    mask_coefs: Shaped[Tensor, "..."] | None = None,
    prototypes: Shaped[Tensor, "..."] | None = None,
    keypoints: Shaped[Tensor, "..."] | None = None,
    keypoint_values: int = 3,
    keypoint_form: KeypointForm = "doubled",
    angle: Shaped[Tensor, "..."] | None = None,
    attribute_logits: Mapping[str, Tensor] | None = None,
    semantic_logits: Shaped[Tensor, "..."] | None = None,
    exclusive: bool = False,
    role: str = "main",
) -> Outputs:
    """Outputs of a head that gives one map (B, 4 * num_bins + num_classes, rows, columns) per level, finest first.

    The first 4 * num_bins channels are the raw distances, side by side (left, top, right, bottom) with `num_bins` bins
    each; then come the raw class logits. Extra heads are joined over the levels already, candidates last.
    Two branches, as end-to-end models train them: `Outputs(one.final, (many.final,))` of two calls with the roles that
    the criterion names.

    Args:
        maps: before any activation and decoding; copied once.
        strides: px, one per map.
        num_classes: C.
        num_bins: bins of each distance (`reg_max`); with 1 the channel is the distance itself.
        image_size: (H, W) px that the network saw; None: what the finest map and its stride say.
        mask_coefs: (B, Q, A), mask coefficients of every candidate.
        prototypes: (B, Q, h, w), what they weigh.
        keypoints: (B, K * keypoint_values, A), raw, channel = keypoint * keypoint_values + value.
        keypoint_values: 2 (x, y) or 3 (x, y, visibility logit).
        keypoint_form: how raw x and y read, see `ops.keypoints.decode_keypoints`.
        angle: (B, 1, A), radians; makes the boxes oriented.
        attribute_logits: name -> raw (B, C_name, A).
        semantic_logits: (B, C, h, w), the helper head of newer segmentation models.
        exclusive: classes exclude one another, so scores are read by softmax.
        role: which rule of the criterion applies.

    Raises:
        ShapeError: a map has another shape, type or place than this says, or the levels belong to no one image size.
    """
    check_strides("from_yolov8_maps", maps, strides)
    batch, channels = len(maps[0]), 4 * num_bins + num_classes
    for level, part in enumerate(maps):
        name = f"from_yolov8_maps: maps[{level}]"
        check_kind(name, part, maps[0])
        if part.ndim == 4 and part.shape[1] != channels:
            raise ShapeError(
                f"{name}: expected 4 * num_bins + num_classes = 4 * {num_bins} + {num_classes} = {channels} channels "
                f"in (B, channels, rows, columns), got {part.shape[1]} in {tuple(part.shape)}; give the raw maps, "
                "before decoding, with the head's own num_bins (reg_max) and num_classes"
            )
        check_shape(name, part, (batch, channels, None, None), "(B, 4 * num_bins + num_classes, rows, columns)")
    shapes = [(part.shape[2], part.shape[3]) for part in maps]
    check_levels("from_yolov8_maps", shapes, strides, image_size)
    grid = grid_like(maps[0], tuple(shapes), tuple(strides))
    joined = torch.cat([part.flatten(2) for part in maps], dim=2)
    # One split, not two slices: its gradient is one tensor, written once.
    boxes, logits = torch.split(joined, [4 * num_bins, num_classes], dim=1)
    extras = _Extras(
        mask_coefs, prototypes, keypoints, keypoint_values, keypoint_form, angle, dict(attribute_logits or {}),
        semantic_logits, exclusive, role,
    )  # fmt: skip
    return extras.outputs("from_yolov8_maps", boxes, logits, grid, num_bins)


def from_yolov8_joined(
    boxes: Shaped[Tensor, "..."],
    scores: Shaped[Tensor, "..."],
    strides: Sequence[int],
    *,
    image_size: tuple[int, int],
    num_bins: int = 16,
    mask_coefs: Shaped[Tensor, "..."] | None = None,
    prototypes: Shaped[Tensor, "..."] | None = None,
    keypoints: Shaped[Tensor, "..."] | None = None,
    keypoint_values: int = 3,
    keypoint_form: KeypointForm = "doubled",
    angle: Shaped[Tensor, "..."] | None = None,
    attribute_logits: Mapping[str, Tensor] | None = None,
    semantic_logits: Shaped[Tensor, "..."] | None = None,
    exclusive: bool = False,
    role: str = "main",
) -> Outputs:
    """Outputs of a head that has joined its levels: raw distances (B, 4 * num_bins, A) and class logits (B, C, A).

    Candidates go level by level (finest first) and row by row. Nothing is copied. All else as `from_yolov8_maps`.

    Raises:
        ShapeError: a shape or type is another, or A is not the number of cells that image size and strides give.
    """
    name = "from_yolov8_joined"
    check_size(f"{name}: image_size", image_size)
    grid = grid_for_image(image_size, strides, boxes.device)
    cells = len(grid.points)
    check_kind(f"{name}: boxes", boxes, boxes)
    check_kind(f"{name}: scores", scores, boxes)
    check_shape(f"{name}: boxes", boxes, (None, 4 * num_bins, cells), f"(B, 4 * num_bins, A) with A = {cells} cells")
    check_shape(f"{name}: scores", scores, (len(boxes), None, cells), f"(B, C, A) with A = {cells} cells")
    extras = _Extras(
        mask_coefs, prototypes, keypoints, keypoint_values, keypoint_form, angle, dict(attribute_logits or {}),
        semantic_logits, exclusive, role,
    )  # fmt: skip
    return extras.outputs(name, boxes, scores, grid, num_bins)


@dataclass(frozen=True, slots=True)
class _Extras:
    """What is beside boxes and scores."""

    mask_coefs: Tensor | None
    prototypes: Tensor | None
    keypoints: Tensor | None
    keypoint_values: int
    keypoint_form: KeypointForm
    angle: Tensor | None
    attribute_logits: dict[str, Tensor]
    semantic_logits: Tensor | None
    exclusive: bool
    role: str

    def outputs(self, caller: str, boxes: Tensor, logits: Tensor, grid: Grid, num_bins: int) -> Outputs:
        """Outputs from raw boxes (B, 4 * num_bins, A) and logits (B, C, A)."""
        self._check(caller, logits, len(grid.points))
        decoder = Distance(num_bins=num_bins) if self.angle is None else Oriented(num_bins=num_bins)
        points = None if self.keypoints is None else _keypoints(caller, self.keypoints, self.keypoint_values)
        return Outputs(
            Predictions(
                logits.transpose(1, 2),
                boxes.transpose(1, 2),
                decoder,
                grid,
                role=self.role,
                exclusive=self.exclusive,
                mask_coefs=None if self.mask_coefs is None else self.mask_coefs.transpose(1, 2),
                prototypes=self.prototypes,
                keypoints_raw=points,
                keypoint_form=self.keypoint_form,
                angle=None if self.angle is None else self.angle.squeeze(1),
                attribute_logits={name: part.transpose(1, 2) for name, part in self.attribute_logits.items()} or None,
                semantic_logits=self.semantic_logits,
            )
        )

    def _check(self, caller: str, logits: Tensor, cells: int) -> None:
        batch, mask_coefs = len(logits), self.mask_coefs
        named = {"mask_coefs": mask_coefs, "keypoints": self.keypoints, "angle": self.angle}
        named |= {f"attribute_logits[{name!r}]": part for name, part in self.attribute_logits.items()}
        for name, part in named.items():
            if part is not None:
                check_kind(f"{caller}: {name}", part, logits)
                check_shape(f"{caller}: {name}", part, (batch, None, cells), f"(B, n, A) = ({batch}, n, {cells})")
        if (mask_coefs is None) != (self.prototypes is None):
            raise ShapeError(f"{caller}: mask_coefs, prototypes: expected both or neither, got one of them")
        if mask_coefs is not None and self.prototypes is not None:
            wanted = (batch, mask_coefs.shape[1], None, None)
            words = f"(B, Q, h, w) with Q = {mask_coefs.shape[1]}"
            check_shape(f"{caller}: prototypes", self.prototypes, wanted, words)
        if self.angle is not None:
            check_shape(f"{caller}: angle", self.angle, (batch, 1, cells), "(B, 1, A)")
        if self.semantic_logits is not None:
            wanted = (batch, logits.shape[1], None, None)
            check_shape(f"{caller}: semantic_logits", self.semantic_logits, wanted, "(B, C, h, w)")


def _keypoints(caller: str, keypoints: Tensor, values: int) -> Tensor:
    if values not in (2, 3):
        raise ShapeError(f"{caller}: keypoint_values: expected 2 (x, y) or 3 (x, y, visibility), got {values}")
    if keypoints.shape[1] % values:
        raise ShapeError(
            f"{caller}: keypoints: expected K * {values} channels (keypoint_values={values}), got {keypoints.shape[1]}"
        )
    return torch.unflatten(keypoints.transpose(1, 2), 2, (-1, values))
