# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Keypoint terms in planes of (keypoints, pairs): cut and read once for all terms of a rule."""

import torch
from jaxtyping import Float
from torch import Tensor

from boxwright.kernels.keypoint_sums import KeypointColumns, keypoint_columns, keypoint_miss_sums
from boxwright.kernels.rows import planes_at, slot_of
from boxwright.kernels.softplus import sum_of_bce
from boxwright.losses.shared import shared_value
from boxwright.losses.terms.keypoint import (
    KeypointLocation,
    KeypointVisibility,
    checked_labels,
    mean_over_keypoints,
    positives,
)
from boxwright.structures import Assignment, Predictions, Targets


def keypoint_location(
    term: KeypointLocation, preds: Predictions, targets: Targets, pairs: Assignment
) -> Float[Tensor, " P"]:
    """Contribution of each pair."""
    columns = _columns(preds, pairs)
    labels = _label_planes(preds, targets, pairs)
    visible = (labels[:, 2] != 0) & pairs.valid
    strides = preds.cells.strides[pairs.anchor].to(columns.x.dtype)
    # In cells of each pair's level, as the epsilon of the area is.
    corner = planes_at(preds.cells.points, pairs.anchor).to(columns.x.dtype) / strides
    step, shift = (1.0, 0.0) if preds.keypoint_form == "offset" else (2.0, -0.5)
    missed = keypoint_miss_sums(
        columns.x,
        columns.y,
        corner + shift,
        (labels[:, :2] / strides).movedim(1, 0),
        visible,
        _area(targets, pairs, strides),
        term.spreads(preds.keypoints_at(pairs)),
        step,
    )
    return mean_over_keypoints(missed, visible.t(), pairs)


def keypoint_visibility(
    term: KeypointVisibility, preds: Predictions, targets: Targets, pairs: Assignment
) -> Float[Tensor, " P"]:
    """Contribution of each pair."""
    seen = _columns(preds, pairs).seen
    if seen is None:
        return torch.zeros_like(pairs.weight)
    visible = _label_planes(preds, targets, pairs)[:, 2] != 0
    missed = sum_of_bce(seen.t(), visible.to(seen.dtype).t()) / len(seen)
    return torch.where(pairs.valid, missed, torch.zeros_like(missed)) / positives(pairs, missed)


def _columns(preds: Predictions, pairs: Assignment) -> KeypointColumns:
    """Raw keypoints of the pairs by coordinate, cut once for all terms, so that their gradient is written once."""
    return shared_value(preds, pairs, "keypoint columns", lambda: keypoint_columns(preds.keypoints_at(pairs)))


def _label_planes(preds: Predictions, targets: Targets, pairs: Assignment) -> Float[Tensor, "K 3 P"]:
    """Labelled x, y and visibility of each pair's keypoints, in the dtype of the raw ones."""
    raw = preds.keypoints_at(pairs)

    def read() -> Tensor:
        labels = checked_labels(raw, targets).to(raw.dtype).flatten(0, 1).flatten(1).t().contiguous()
        return torch.unflatten(labels.index_select(1, slot_of(pairs, targets)), 0, (raw.shape[1], 3))

    return shared_value(preds, pairs, "keypoint labels", read)


def _area(targets: Targets, pairs: Assignment, strides: Tensor) -> Float[Tensor, " P"]:
    """Area of each pair's box, square cells; 1 where a pair is not valid."""
    x1, y1, x2, y2 = planes_at(targets.boxes.flatten(0, 1), slot_of(pairs, targets)).to(strides.dtype)
    return torch.where(pairs.valid, (x2 - x1) / strides * ((y2 - y1) / strides), torch.ones_like(x1))
