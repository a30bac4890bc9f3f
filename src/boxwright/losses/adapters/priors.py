# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Raw maps of a dense head with priors (anchors) and objectness (YOLOv5-like), as another code base has them."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Shaped
from torch import Tensor

from boxwright.errors import ShapeError
from boxwright.losses.adapters.checks import check_kind, check_levels, check_shape, check_size, check_strides
from boxwright.ops.decode import Anchor
from boxwright.ops.grid import grid_for_image
from boxwright.ops.kept_grid import Priors, grid_like
from boxwright.structures import Grid, Outputs, Predictions

PriorUnit = Literal["pixel", "cell"]  # px of the network input, or px divided by the level's stride
Anchors = Sequence[Sequence[Sequence[float | int]]] | Tensor  # (width, height) of every anchor of each level
BOX_AND_OBJECTNESS = 5  # columns before the classes: x, y, w, h and objectness
LARGEST_CELLS = 64.0  # cells; published anchors stay below 16
SMALLEST_SHARE = 0.75  # of a stride; in pixels, the largest anchor of a published level has more than 3


def from_yolov5_maps(
    maps: Sequence[Shaped[Tensor, "..."]],
    anchors: Anchors,
    strides: Sequence[int],
    *,
    anchor_unit: PriorUnit,
    num_classes: int,
    image_size: tuple[int, int] | None = None,
    num_coefs: int = 0,
    prototypes: Shaped[Tensor, "..."] | None = None,
    exclusive: bool = False,
    role: str = "main",
) -> Outputs:
    """Outputs of a head that gives one map (B, anchors, rows, columns, 5 + C [+ Q]) per level, finest first.

    The last axis holds raw x, y, w, h, objectness, class logits and mask coefficients. Such maps are used as they lie
    in memory, one `Predictions` (and one `layer`) per level, and get one gradient written at once. Maps
    (B, anchors * (5 + C [+ Q]), rows, columns), straight from a convolution, are copied once.

    Args:
        maps: before any activation and decoding.
        anchors: (width, height) of every anchor of each level, as lists or a host tensor (levels, anchors, 2).
        strides: px, one per map.
        anchor_unit: "pixel" (as configuration files list them) or "cell" (as YOLOv5 modules hold them).
        num_classes: C.
        image_size: (H, W) px that the network saw; None: what the finest map and its stride say.
        num_coefs: Q, mask coefficients behind the classes.
        prototypes: (B, Q, h, w), what the coefficients weigh.
        exclusive: classes exclude one another, so scores are read by softmax.
        role: which rule of the criterion applies.

    Raises:
        ShapeError: a map has another shape, type or place than this says, the levels belong to no one image size, or
            the anchors look like another unit.
    """
    caller = "from_yolov5_maps"
    check_strides(caller, maps, strides)
    levels = _anchors(caller, anchors, strides, anchor_unit)
    columns = BOX_AND_OBJECTNESS + num_classes + num_coefs
    batch = len(maps[0])
    words = f"5 + {num_classes} classes + {num_coefs} mask coefficients = {columns}"
    tables, shapes = [], []
    for level, (part, priors) in enumerate(zip(maps, levels, strict=True)):
        name = f"{caller}: maps[{level}]"
        check_kind(name, part, maps[0])
        if part.ndim == 4:
            wanted = (batch, len(priors) * columns, None, None)
            check_shape(name, part, wanted, f"(B, {len(priors)} anchors * columns, rows, columns) with {words}")
            part = torch.unflatten(part, 1, (len(priors), columns)).permute(0, 1, 3, 4, 2)
        else:
            shape = (batch, len(priors), None, None, columns)
            check_shape(name, part, shape, f"(B, {len(priors)} anchors, rows, columns, n) with n = {words}")
        shapes.append((part.shape[2], part.shape[3]))
        tables.append(part.flatten(1, 3))
    check_levels(caller, shapes, strides, image_size)
    if (prototypes is None) != (num_coefs == 0):
        raise ShapeError(f"{caller}: num_coefs, prototypes: expected both or neither, got one of them")
    if prototypes is not None:
        check_shape(f"{caller}: prototypes", prototypes, (batch, num_coefs, None, None), "(B, Q, h, w)")
    classes = slice(BOX_AND_OBJECTNESS, BOX_AND_OBJECTNESS + num_classes)
    found = [
        Predictions(
            logits=table[..., classes],
            box_raw=table[..., :4],
            decoder=Anchor(),
            grid=grid_like(table, (shapes[level],), (strides[level],), (levels[level],), level, len(shapes)),
            role=role,
            layer=level,
            objectness=table[..., 4],
            table=table,
            mask_coefs=table[..., classes.stop :] if num_coefs else None,
            prototypes=prototypes,
            exclusive=exclusive,
        )
        for level, table in enumerate(tables)
    ]
    return Outputs(found[-1], tuple(found[:-1]))


def yolov5_grid(
    image_size: tuple[int, int],
    anchors: Anchors,
    strides: Sequence[int],
    *,
    anchor_unit: PriorUnit,
) -> Grid:
    """The grid of all levels of a YOLOv5-like head, for `Criterion.prepare` in a loader.

    Raises:
        ShapeError: a side of the image is not a multiple of a stride, or the anchors look like another unit.
    """
    check_size("yolov5_grid: image_size", image_size)
    levels = _anchors("yolov5_grid", anchors, strides, anchor_unit)
    return grid_for_image(image_size, strides, priors=levels, prior_first=True)


def _anchors(caller: str, anchors: Anchors, strides: Sequence[int], unit: PriorUnit) -> tuple[Priors, ...]:
    """Px, (width, height) of every anchor."""
    if unit not in ("pixel", "cell"):
        raise ShapeError(f"{caller}: anchor_unit: expected 'pixel' or 'cell', got '{unit}'")
    rows = anchors.tolist() if isinstance(anchors, Tensor) else [[list(pair) for pair in level] for level in anchors]
    if len(rows) != len(strides) or not all(rows) or any(len(pair) != 2 for level in rows for pair in level):
        raise ShapeError(
            f"{caller}: anchors: expected (width, height) pairs for each of {len(strides)} levels, got "
            f"{[[tuple(pair) for pair in level] for level in rows]}"
        )
    sides = [float(side) for level in rows for pair in level for side in pair]
    if not min(sides) > 0:
        raise ShapeError(f"{caller}: anchors: expected sides of more than 0, got {min(sides):g}")
    if unit == "cell" and max(sides) > LARGEST_CELLS:
        raise ShapeError(
            f"{caller}: anchors: expected sides in cells, got {max(sides):g}; that looks like pixels: "
            "say anchor_unit='pixel'"
        )
    largest = [max(float(side) for pair in level for side in pair) for level in rows]
    if unit == "pixel" and all(side < SMALLEST_SHARE * stride for side, stride in zip(largest, strides, strict=True)):
        raise ShapeError(
            f"{caller}: anchors: expected sides in pixels, got largest sides {largest} for strides {list(strides)}; "
            "that looks like cells: say anchor_unit='cell'"
        )
    scale = [1.0 if unit == "pixel" else float(stride) for stride in strides]
    return tuple(tuple((float(w) * by, float(h) * by) for w, h in level) for level, by in zip(rows, scale, strict=True))
