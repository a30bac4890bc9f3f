# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Boxes as (cx, cy, w, h) in shares of the image: the unit and form that set prediction costs are defined in."""

from jaxtyping import Float, Int64
from torch import Tensor

from boxwright.errors import ShapeError
from boxwright.ops.boxes import xyxy_to_cxcywh
from boxwright.ops.constants import constant
from boxwright.ops.decode import Normalized
from boxwright.structures import Assignment, Predictions, Targets, at_least_float32


def predicted_boxes(preds: Predictions) -> Float[Tensor, "B A 4"]:
    """Every candidate's box, without gradient."""
    if isinstance(preds.decoder, Normalized):
        return at_least_float32(preds.box_raw.detach())
    return _normalized(preds.boxes, preds, "Predictions")


def matched_boxes(preds: Predictions, pairs: Assignment) -> Float[Tensor, "P 4"]:
    """Boxes of the matched candidates, with gradient; a harmless constant where a pair is not valid."""
    # Through pixels and back a small box would lose digits.
    if isinstance(preds.decoder, Normalized):
        return preds.raw_at(pairs)
    return _normalized(preds.boxes_at(pairs), preds, "Predictions")


def true_boxes(
    preds: Predictions, targets: Targets, image: Int64[Tensor, " N"], slot: Int64[Tensor, " N"]
) -> Float[Tensor, "N 4"]:
    """True boxes of chosen slots, in the precision of the predictions."""
    boxes = targets.boxes[image, slot].to(at_least_float32(preds.box_raw[:0]).dtype)
    return _normalized(boxes, preds, "Targets")


def _normalized(boxes: Tensor, preds: Predictions, whose: str) -> Tensor:
    if boxes.shape[-1] != 4:
        raise ShapeError(
            f"{whose}.boxes: set prediction expects axis-aligned boxes of 4 numbers, got {boxes.shape[-1]} numbers"
        )
    height, width = preds.image_size
    return xyxy_to_cxcywh(boxes / constant((width, height, width, height), boxes))
