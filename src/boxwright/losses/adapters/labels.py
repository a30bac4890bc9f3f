# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Labels as other code bases keep them, flat rows or padded slots in any unit, as `Targets`."""

from collections.abc import Mapping, Sequence
from typing import get_args

import torch
from jaxtyping import Shaped
from torch import Tensor

from boxwright.errors import ShapeError
from boxwright.losses.adapters.checks import check_size
from boxwright.losses.adapters.units import BoxUnit, boxes_in_pixels, enclosing, points_in_pixels
from boxwright.losses.adapters.values import Claim, LabelRows, check_values
from boxwright.structures import Targets, at_least_float32

RANKS: Mapping[str, tuple[Sequence[int], str]] = {  # axes of each field, and in words; attributes by their own
    "image": ((1,), "(N,)"),
    "labels": ((1,), "(N,)"),
    "boxes": ((2,), "(N, 4), or (N, 5) for oriented boxes"),
    "weights": ((1,), "(N,)"),
    "keypoints": ((3,), "(N, K, 2) or (N, K, 3)"),
    "masks": ((3,), "(N, h, w)"),
    "ignore": ((1,), "(N,)"),
}


def targets_from_rows(
    image: Shaped[Tensor, "..."],
    labels: Shaped[Tensor, "..."],
    boxes: Shaped[Tensor, "..."],
    *,
    batch: int,
    image_size: tuple[int, int],
    unit: BoxUnit = "normalized_cxcywh",
    num_classes: int | None = None,
    weights: Shaped[Tensor, "..."] | None = None,
    keypoints: Shaped[Tensor, "..."] | None = None,
    masks: Shaped[Tensor, "..."] | None = None,
    instance_map: Shaped[Tensor, "..."] | None = None,
    class_map: Shaped[Tensor, "..."] | None = None,
    attributes: Mapping[str, Tensor] | None = None,
    ignore: Shaped[Tensor, "..."] | None = None,
    slots: int | None = None,
    check: bool = True,
) -> Targets:
    """Targets from one row per object; rows of different images may be mixed.

    Slot m of an image is its m-th row, so an `instance_map` holds m + 1. A row of zeros, and a row marked `ignore`,
    keep their slot but are no objects. Everything stays on the device of `boxes`; float64 boxes stay float64.

    On the host this is the work of a loader. Rows on a GPU cost one sync for the checks; with `check=False` and `slots`
    none.

    >>> row = torch.tensor([[0.5, 0.5, 0.5, 1.0]])
    >>> targets = targets_from_rows(torch.tensor([1]), torch.tensor([7]), row, batch=2, image_size=(10, 20))
    >>> targets.valid.tolist(), targets.boxes[1].tolist()
    ([[False], [True]], [[5.0, 0.0, 15.0, 10.0]])

    Args:
        image: (N,) image of each row, 0 to batch - 1; whole numbers of any type.
        labels: (N,) class of each row; whole numbers of any type.
        boxes: (N, 4) numbers in `unit`, or (N, 5) with the angle in radians and a unit of centre and size.
        batch: B, images in the batch, also those without a row.
        image_size: (H, W) px that the network sees: what normalised numbers are shares of.
        unit: what the numbers of `boxes`, and of `keypoints`, are.
        num_classes: labels are checked against it.
        weights: (N,) factor on all contributions of an object.
        keypoints: (N, K, 2 or 3) as x, y and visibility (0, 1 or 2), in shares or px as the boxes; without a visibility
            all are visible.
        masks: (N, h, w) of any type, not 0 where the object is.
        instance_map: (B, h, w) 0 background, m + 1 where the m-th row of the image is seen.
        class_map: (B, h, w) class of every pixel, for the semantic helper loss.
        attributes: name -> (N,) whole numbers, or (N, C_name) of 0 and 1 for those that hold several at once; -1 is
            not labelled.
        ignore: (N,) bool, rows that mark regions where unmatched candidates cost nothing, for example crowds. Their
            labels are not read.
        slots: M, slots of each image; None: the rows of the fullest image. One number for all batches keeps shapes.
        check: look at values too; off, values are trusted and rows beyond `slots` are lost.

    Raises:
        ShapeError: a field has another shape, type or unit than this says, or fields differ in their number of rows.
        DataError: a value cannot be: an image or class out of range, a number that is not finite, a negative size.
    """
    rows = LabelRows(image, labels, boxes, weights, keypoints, masks, attributes, ignore)
    claim = Claim("targets_from_rows", batch, unit, num_classes, lambda row: f"row {row}")
    _check_rows(rows, claim)
    return _targets(rows, claim, image_size, instance_map, class_map, slots, check)


def targets_from_padded(
    labels: Shaped[Tensor, "..."],
    boxes: Shaped[Tensor, "..."],
    valid: Shaped[Tensor, "..."] | None = None,
    *,
    image_size: tuple[int, int],
    unit: BoxUnit = "normalized_cxcywh",
    num_classes: int | None = None,
    weights: Shaped[Tensor, "..."] | None = None,
    keypoints: Shaped[Tensor, "..."] | None = None,
    masks: Shaped[Tensor, "..."] | None = None,
    instance_map: Shaped[Tensor, "..."] | None = None,
    class_map: Shaped[Tensor, "..."] | None = None,
    attributes: Mapping[str, Tensor] | None = None,
    ignore: Shaped[Tensor, "..."] | None = None,
    check: bool = True,
) -> Targets:
    """Targets from M slots per image. Without `valid` a slot is used unless its label is negative.

    Values of unused slots are not read. All else as `targets_from_rows`, with (B, M) where that has (N,).

    Raises:
        ShapeError: a field has another shape, type or unit than this says.
        DataError: a value of a used slot cannot be.
    """
    caller = "targets_from_padded"
    if labels.ndim != 2:
        raise ShapeError(f"{caller}: labels: expected (B, M), got {tuple(labels.shape)}")
    batch, width = labels.shape
    image = torch.arange(batch, device=boxes.device).repeat_interleave(width)
    padded = LabelRows(image, labels, boxes, weights, keypoints, masks, attributes, ignore)
    for name, part in (*padded.fields.items(), ("valid", labels if valid is None else valid)):
        if name != "image" and tuple(part.shape[:2]) != (batch, width):
            raise ShapeError(
                f"{caller}: {name}: expected (B, M, ...) = ({batch}, {width}, ...) as the labels, got "
                f"{tuple(part.shape)}"
            )
    used = (labels >= 0 if valid is None else valid).flatten().to(boxes.device)

    def flat(part: Tensor | None, empty: int = 0) -> Tensor | None:
        # Not a product: an unused slot may hold anything. It becomes a row of zeros, which is no object.
        return None if part is None else _where(used, part.flatten(0, 1), empty)

    rows = LabelRows(
        image,
        _where(used, labels.flatten(), 0),
        _where(used, boxes.flatten(0, 1), 0),
        flat(weights),
        flat(keypoints),
        flat(masks),
        None if attributes is None else {name: _where(used, of.flatten(0, 1), -1) for name, of in attributes.items()},
        flat(ignore),
    )
    claim = Claim(caller, batch, unit, num_classes, lambda row: f"image {row // width}, slot {row % width}")
    _check_rows(rows, claim)
    return _targets(rows, claim, image_size, instance_map, class_map, width, check)


def _targets(
    rows: LabelRows,
    claim: Claim,
    image_size: tuple[int, int],
    instance_map: Tensor | None,
    class_map: Tensor | None,
    slots: int | None,
    check: bool,
) -> Targets:
    check_size(f"{claim.caller}: image_size", image_size)
    for name, part in (("instance_map", instance_map), ("class_map", class_map)):
        if part is not None and (part.ndim != 3 or len(part) != claim.batch):
            raise ShapeError(
                f"{claim.caller}: {name}: expected (B, h, w) with B = {claim.batch}, got {tuple(part.shape)}"
            )
    fullest = check_values(rows, claim) if check else None
    if slots is not None and fullest is not None and fullest > slots:
        raise ShapeError(f"{claim.caller}: slots: expected at least {fullest}, the fullest image's rows, got {slots}")
    pick = _Slots(rows.image.to(rows.boxes.device), claim.batch, fullest if slots is None else slots)
    boxes = at_least_float32(rows.boxes)
    pixels = boxes_in_pixels(boxes, claim.unit, image_size)
    used = rows.boxes.ne(0).any(dim=1)
    real = used if rows.ignore is None else used & ~rows.ignore
    points = None if rows.keypoints is None else rows.keypoints.to(boxes.dtype)
    return Targets(
        labels=pick(_where(real, rows.labels.to(torch.int64), 0)),
        boxes=pick(_where(real, pixels, 0)),
        valid=pick(real),
        weights=None if rows.weights is None else pick(rows.weights.to(boxes.dtype)),
        masks=None if rows.masks is None else pick(rows.masks != 0),
        instance_map=None if instance_map is None else instance_map.to(torch.int32),
        class_map=None if class_map is None else class_map.to(torch.int64),
        keypoints=None if points is None else pick(points_in_pixels(points, claim.unit, image_size)),
        attributes=None
        if rows.attributes is None
        else {n: pick(_attribute(of), -1) for n, of in rows.attributes.items()},
        ignore=None if rows.ignore is None else pick(_where(rows.ignore & used, enclosing(pixels), 0)),
    )


class _Slots:
    """Moves rows to (B, M): each to its image, in the order in which the image's rows stand."""

    def __init__(self, image: Tensor, batch: int, slots: int | None) -> None:
        image = image.to(torch.int64)
        counts = torch.zeros(batch, dtype=torch.int64, device=image.device)
        counts.scatter_add_(0, image, torch.ones_like(image))
        first = torch.cumsum(counts, 0) - counts
        order = torch.argsort(image, stable=True)
        number = torch.arange(len(image), device=image.device)
        slot = torch.empty_like(image).scatter_(0, order, number - first[image[order]])
        self.shape = batch, int(counts.max()) if slots is None else slots
        # Rows beyond the slots go to a place behind the last.
        self.place = torch.where(slot < self.shape[1], image * self.shape[1] + slot, batch * self.shape[1])

    def __call__(self, rows: Tensor, empty: int = 0) -> Tensor:
        """(B, M, ...) of the rows; unused slots hold `empty`."""
        batch, slots = self.shape
        out = torch.full((batch * slots + 1, *rows.shape[1:]), empty, dtype=rows.dtype, device=rows.device)
        return out.index_copy_(0, self.place.to(rows.device), rows)[:-1].view(batch, slots, *rows.shape[1:])


def _where(used: Tensor, rows: Tensor, empty: int) -> Tensor:
    flag = used.to(rows.device).view(-1, *[1] * (rows.ndim - 1))
    return torch.where(flag, rows, torch.full_like(rows[:1], empty))


def _attribute(part: Tensor) -> Tensor:
    return part.to(torch.int64) if part.ndim == 1 else part.to(torch.promote_types(part.dtype, torch.float32))


def _check_rows(rows: LabelRows, claim: Claim) -> None:
    """Shapes and types, which need no look at values."""
    for name, part in rows.fields.items():
        ranks, words = RANKS.get(name, ((1, 2), "(N,), or (N, C) for several at once"))
        if part.ndim not in ranks:
            raise ShapeError(f"{claim.caller}: {name}: expected {words}, got {tuple(part.shape)}")
    count = len(rows.boxes)
    for name, part in rows.fields.items():
        if len(part) != count:
            raise ShapeError(
                f"{claim.caller}: {name}: expected one row per box, {count} rows, got {len(part)}; all fields list "
                "the same objects in the same order"
            )
    if claim.unit not in get_args(BoxUnit):
        raise ShapeError(f"{claim.caller}: unit: expected one of {', '.join(get_args(BoxUnit))}, got '{claim.unit}'")
    numbers = rows.boxes.shape[1]
    if numbers not in (4, 5) or not rows.boxes.is_floating_point():
        raise ShapeError(
            f"{claim.caller}: boxes: expected 4 floating-point numbers, or 5 for oriented boxes, got "
            f"{rows.boxes.dtype} {tuple(rows.boxes.shape)}"
        )
    if numbers == 5 and not claim.unit.endswith("cxcywh"):
        raise ShapeError(
            f"{claim.caller}: unit: expected 'normalized_cxcywh' or 'pixel_cxcywh' for boxes with an angle, "
            f"got '{claim.unit}'"
        )
    if rows.keypoints is not None and rows.keypoints.shape[2] not in (2, 3):
        raise ShapeError(
            f"{claim.caller}: keypoints: expected {RANKS['keypoints'][1]}, got {tuple(rows.keypoints.shape)}"
        )
    if rows.ignore is not None and rows.ignore.dtype != torch.bool:
        raise ShapeError(f"{claim.caller}: ignore: expected a bool per row, got {rows.ignore.dtype}")
