# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""What the definitions of assigners share. They look at one image at a time, objects in rows and cells in columns.

A row is a target slot, used or not; a column is a candidate of the grid, or a query.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from boxwright.errors import ShapeError
from boxwright.ops.collective import sum_over_ranks
from boxwright.ops.scores import class_probabilities
from boxwright.structures import Assignment, Predictions, Targets, at_least_float32


def best(values: Float[Tensor, "M A"], count: int, dim: int) -> Bool[Tensor, "M A"]:
    """Marks the `count` largest values along an axis, the first of equal ones; not-a-number counts as largest.

    >>> best(torch.tensor([[1.0, 3.0, 3.0, 3.0]]), 2, dim=1).tolist()
    [[False, True, True, False]]
    """
    order = values.sort(dim=dim, descending=True, stable=True).indices
    chosen = order.narrow(dim, 0, min(count, values.shape[dim]))
    return torch.zeros_like(values, dtype=torch.bool).scatter(dim, chosen, True)


def boxes_of_image(preds: Predictions, image: int) -> Float[Tensor, "A box"]:
    """Decoded boxes of every candidate of an image, px."""
    return preds.boxes_of(slice(image, image + 1))[0]


def true_boxes_of_image(preds: Predictions, targets: Targets, image: int) -> Float[Tensor, "M box"]:
    """True boxes of an image, px, in the precision that overlaps are computed in."""
    return targets.boxes[image].to(at_least_float32(preds.box_raw[:0]).dtype)


def labels_of_image(targets: Targets, image: int) -> Int64[Tensor, " M"]:
    """Class of every slot; 0 where a slot is not used."""
    return targets.labels[image].masked_fill(~targets.valid[image], 0)


def scores_of_image(preds: Predictions, targets: Targets, image: int) -> Float[Tensor, "M A"]:
    """Probability that every candidate gives to each object's class."""
    objectness = None if preds.objectness is None else preds.objectness[image]
    return class_probabilities(preds.logits[image], preds.exclusive, objectness).T[labels_of_image(targets, image)]


def assignment(
    preds: Predictions, chosen: Sequence[Bool[Tensor, "M A"]], weights: Sequence[Float[Tensor, "M A"]]
) -> Assignment:
    """The chosen pairs by image, candidate and object, with their weights; the normalizer is their sum, at least 1."""
    like = at_least_float32(preds.box_raw[:0])
    pairs = [mask.T.nonzero() for mask in chosen]
    image = torch.repeat_interleave(torch.tensor([len(rows) for rows in pairs], dtype=torch.int64, device=like.device))
    anchor, slot = torch.cat([image.new_zeros(0, 2), *pairs]).unbind(dim=1)
    weight = torch.cat([like.flatten(), *(values.T[mask.T] for mask, values in zip(chosen, weights, strict=True))])
    normalizer = sum_over_ranks(weight.sum()).clamp(min=1)
    return Assignment(image, anchor, slot, torch.ones_like(image, dtype=torch.bool), weight, normalizer, all_valid=True)


def with_area(boxes: Float[Tensor, "M 4"]) -> Bool[Tensor, " M"]:
    """Which corner boxes have an area."""
    return (boxes[:, 2:] > boxes[:, :2]).all(dim=-1)


def check_upright(name: str, preds: Predictions, targets: Targets) -> None:
    """Raises when targets are not objects that an assigner of upright boxes on a grid can match.

    Raises:
        ShapeError: queries, oriented boxes, or a label or box that the predictions cannot have.
    """
    if targets.oriented:
        raise ShapeError(f"{name}: expected axis-aligned boxes (B, M, 4), got {tuple(targets.boxes.shape)}")
    check_objects(targets, preds.logits.shape[-1])


def check_objects(targets: Targets, classes: int) -> None:
    """Raises when a used slot does not hold an object that the predictions can have.

    Raises:
        ShapeError: naming the label or the box.
    """
    negative, infinite = targets.valid & (targets.labels < 0), targets.valid & ~targets.boxes.isfinite().all(dim=-1)
    for name, wrong, expected in (
        ("labels", negative, "class indices of at least 0"),
        ("boxes", infinite, "finite pixels"),
        ("labels", targets.valid & (targets.labels >= classes), f"class indices below {classes}, the number of classes "
         "the predictions have"),
    ):  # fmt: skip
        for image, slot in wrong.nonzero().tolist():
            got = getattr(targets, name)[image, slot].tolist()
            raise ShapeError(f"Targets.{name}: expected {expected}, got {got} at image {image}, slot {slot}")
