# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Box terms of heads with distances: one softmax serves boxes and cross-entropy, tables are read in planes."""

import torch
from jaxtyping import Float
from torch import Tensor

from boxwright.kernels.bins import Bins, distance_cross_entropy, mean_distance
from boxwright.kernels.rows import planes_at, slot_of
from boxwright.losses.shared import shared_value
from boxwright.losses.terms.box import BoxOverlap, DistanceBins, DistanceL1, num_bins, true_distances
from boxwright.ops.decode import Distance, Oriented
from boxwright.ops.distances import decode_distances, decode_rotated
from boxwright.structures import Assignment, Predictions, Targets, rows_at


def box_overlap(term: BoxOverlap, preds: Predictions, targets: Targets, pairs: Assignment) -> Float[Tensor, " P"]:
    """Contribution of each pair."""
    return term.contributions(_boxes_at(preds, pairs), _wanted(targets, pairs), preds, pairs)


def distance_bins(term: DistanceBins, preds: Predictions, targets: Targets, pairs: Assignment) -> Float[Tensor, " P"]:
    """Contribution of each pair."""
    if num_bins(preds, "DistanceBins") == 1:
        return torch.zeros_like(pairs.weight)
    raw, grid = preds.raw_at(pairs), preds.cells
    wanted = true_distances(_wanted(targets, pairs).to(raw.dtype), grid, pairs, term.rotated)
    stride = grid.strides[pairs.anchor].to(raw.dtype)[:, None]
    missing = distance_cross_entropy(raw, _bins_at(preds, pairs, raw), wanted / stride)
    return torch.where(pairs.valid, missing, torch.zeros_like(missing)) * pairs.share


def distance_l1(term: DistanceL1, preds: Predictions, targets: Targets, pairs: Assignment) -> Float[Tensor, " P"]:
    """Contribution of each pair."""
    return term.contributions(_wanted(targets, pairs), preds, pairs)


def _bins_at(preds: Predictions, pairs: Assignment, raw: Tensor) -> Bins:
    """Exponentials of the pairs' bins, computed once for all terms."""
    return shared_value(preds, pairs, "bins", lambda: Bins.of(raw))


def _boxes_at(preds: Predictions, pairs: Assignment) -> Tensor:
    """Boxes of the pairs as `Predictions.boxes_at` decodes them; distributions over distances share their softmax."""
    decoder = preds.decoder
    if not isinstance(decoder, Distance | Oriented) or decoder.num_bins == 1:
        return preds.boxes_at(pairs)
    raw = preds.raw_at(pairs)
    grid = preds.cells
    points, strides = (part[pairs.anchor].to(raw.dtype) for part in (grid.points, grid.strides))
    distances = mean_distance(raw, _bins_at(preds, pairs, raw)) * strides[:, None]
    if isinstance(decoder, Distance):
        return decode_distances(points, distances)
    if preds.angle is None:
        return preds.boxes_at(pairs)  # which says what is missing
    return decode_rotated(points, distances, rows_at(preds.angle, pairs))


def _wanted(targets: Targets, pairs: Assignment) -> Float[Tensor, "P box"]:
    """Boxes of the pairs' objects, in planes."""
    return planes_at(targets.boxes.flatten(0, 1), slot_of(pairs, targets)).t()
