# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Terms on the matched boxes: overlap, and the distribution over the distances of the sides."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from boxwright.config import component
from boxwright.errors import ShapeError
from boxwright.losses.functional import distribution_focal
from boxwright.ops.decode import Distance
from boxwright.ops.distances import encode_distances
from boxwright.ops.overlap import OverlapName, paired_overlap
from boxwright.structures import Assignment, Predictions, Targets

Unit = Literal["pixel", "cell", "normalized"]


@component
class BoxOverlap:
    """One minus the overlap of each matched pair, weighted by the pair's quality.

    Source: CIoU, Zheng et al. 2020, arXiv:1911.08287; weighting as in TOOD, arXiv:2108.07755.
    """

    kind: Literal["box_overlap"] = "box_overlap"
    overlap: OverlapName = "ciou"
    unit: Unit = "cell"  # the epsilons of the overlap have a unit

    def __call__(self, preds: Predictions, targets: Targets, pairs: Assignment) -> Float[Tensor, " P"]:
        """Contribution of each pair."""
        matched = preds.boxes_at(pairs)
        wanted = targets.boxes[pairs.image, pairs.target].to(matched.dtype)
        matched, wanted = (in_unit(boxes, preds, pairs, self.unit) for boxes in (matched, wanted))
        missing = 1 - paired_overlap(matched, wanted, self.overlap)
        return torch.where(pairs.valid, missing, torch.zeros_like(missing)) * pairs.share


@component
class DistanceBins:
    """Cross-entropy of each side's bins with the two around the true distance, weighted by the pair's quality.

    Silent (zero) for a head with one bin, which has no distribution.

    Source: Generalized Focal Loss, Li et al. 2020, arXiv:2006.04388.
    """

    kind: Literal["distance_bins"] = "distance_bins"

    def __call__(self, preds: Predictions, targets: Targets, pairs: Assignment) -> Float[Tensor, " P"]:
        """Contribution of each pair.

        Raises:
            ShapeError: the predictions do not decode from distances.
        """
        if not isinstance(preds.decoder, Distance):
            raise ShapeError(f"DistanceBins: expected predictions with the decoder Distance, got {preds.decoder!r}")
        if preds.decoder.num_bins == 1:
            return torch.zeros_like(pairs.weight)
        raw = preds.raw_at(pairs)
        wanted = targets.boxes[pairs.image, pairs.target].to(raw.dtype)
        points, strides = (of[pairs.anchor].to(raw.dtype) for of in (preds.cells.points, preds.cells.strides))
        missing = distribution_focal(raw, encode_distances(points, wanted) / strides[:, None])
        return torch.where(pairs.valid, missing, torch.zeros_like(missing)) * pairs.share


def in_unit(boxes: Float[Tensor, "P 4"], preds: Predictions, pairs: Assignment, unit: Unit) -> Float[Tensor, "P 4"]:
    """Pixel boxes of matched pairs in the unit an overlap is defined in."""
    if unit == "cell":
        return boxes / preds.cells.strides[pairs.anchor].to(boxes.dtype)[:, None]
    if unit == "normalized":
        height, width = preds.image_size
        return boxes / boxes.new_tensor((width, height, width, height))
    return boxes
