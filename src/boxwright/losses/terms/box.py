# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Terms on the matched boxes, axis-aligned or oriented: overlap, and the distances of the sides."""

from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from boxwright.config import component
from boxwright.errors import ConfigError, ShapeError
from boxwright.kernels.bins import Bins, distance_cross_entropy, mean_distance
from boxwright.kernels.rows import planes_at, slot_of
from boxwright.ops.box_losses import NWD_SCALE, SIMILARITY_NAMES, BoxSimilarityName, box_similarity, inner_change
from boxwright.ops.boxes import cxcywh_to_xyxy
from boxwright.ops.constants import constant
from boxwright.ops.decode import Distance, Oriented
from boxwright.ops.distances import decode_distances, decode_rotated, encode_distances, encode_rotated
from boxwright.ops.overlap import OverlapName, paired_overlap
from boxwright.ops.probiou import paired_probiou
from boxwright.structures import Assignment, Predictions, Targets, rows_at

Unit = Literal["pixel", "cell", "normalized"]


@component
class BoxOverlap:
    """One minus the overlap of each matched pair, weighted by the pair's quality.

    Oriented boxes ask for the overlap "probiou"; `cov_floor` is then added to both variances of both boxes, which keeps
    a gradient where a box is much smaller than a cell.

    Source: CIoU, Zheng et al. 2020, arXiv:1911.08287; probIoU, Llerena et al. 2021, arXiv:2106.06072; weighting as in
    TOOD, arXiv:2108.07755.
    """

    kind: Literal["box_overlap"] = "box_overlap"
    overlap: OverlapName | BoxSimilarityName | Literal["probiou"] = "ciou"
    unit: Unit = "cell"  # the epsilons of the overlap have a unit; those of `ops/box_losses.py` compare pixels
    cov_floor: float = 0.0  # in the unit, squared; "probiou" only
    inner_ratio: float | None = None  # compare the inner parts (or surroundings, above 1) of the boxes: Inner-IoU
    nwd_scale: float = NWD_SCALE  # px; "nwd" only

    scope: ClassVar[Literal["pair"]] = "pair"

    def __post_init__(self) -> None:
        if self.cov_floor < 0 or (self.cov_floor > 0 and self.overlap != "probiou"):
            raise ConfigError(
                "BoxOverlap.cov_floor: expected 0, or a positive number with the overlap 'probiou', "
                f"got {self.cov_floor} with '{self.overlap}'"
            )
        inner = self.inner_ratio
        if inner is not None and (not 0 < inner <= 2 or self.overlap == "probiou"):
            raise ConfigError(
                "BoxOverlap.inner_ratio: expected null, or a number above 0 and at most 2 with an overlap of "
                f"axis-aligned boxes, got {inner} with '{self.overlap}'"
            )
        if not self.nwd_scale > 0:
            raise ConfigError(f"BoxOverlap.nwd_scale: expected pixels above 0, got {self.nwd_scale}")

    def __call__(self, preds: Predictions, targets: Targets, pairs: Assignment) -> Float[Tensor, " P"]:
        """Contribution of each pair.

        Raises:
            ShapeError: the overlap is not one of the targets' or the predictions' kind of boxes.
        """
        matched = _boxes_at(preds, pairs)
        wanted = _wanted(targets, pairs).to(matched.dtype)
        numbers = 5 if self.overlap == "probiou" else 4
        for field, boxes in (("Predictions", matched), ("Targets", wanted)):
            if boxes.shape[-1] != numbers:
                raise ShapeError(
                    f"BoxOverlap.overlap: '{self.overlap}' expects boxes of {numbers} numbers, got {field} with "
                    f"{boxes.shape[-1]}"
                )
        unit: Unit = "pixel" if self.overlap in SIMILARITY_NAMES else self.unit
        matched, wanted = (in_unit(boxes, preds, pairs, unit) for boxes in (matched, wanted))
        if self.overlap == "probiou":
            # A box without extent under an unused slot would meet the bounds of the definition with infinite slopes.
            matched = torch.where(pairs.valid[:, None], matched, torch.ones_like(matched))
            missing = 1 - paired_probiou(matched, wanted, self.cov_floor)
        else:
            missing = 1 - self._similarity(matched, wanted, preds)
        return torch.where(pairs.valid, missing, torch.zeros_like(missing)) * pairs.share

    def _similarity(self, matched: Tensor, wanted: Tensor, preds: Predictions) -> Tensor:
        name: Any = self.overlap
        if name in SIMILARITY_NAMES:
            similarity = box_similarity(matched, wanted, name, preds.image_size, self.nwd_scale)
        else:
            similarity = paired_overlap(matched, wanted, name)
        return similarity if self.inner_ratio is None else similarity + inner_change(matched, wanted, self.inner_ratio)


@component
class DistanceBins:
    """Cross-entropy of each side's bins with the two around the true distance, weighted by the pair's quality.

    Silent (zero) for a head with one bin, which has no distribution. For oriented boxes distances are measured in the
    frame of the true box, as decoding does with the predicted angle; `rotated` False measures them to the upright box
    of the same centre and sides (compatibility).

    Source: Generalized Focal Loss, Li et al. 2020, arXiv:2006.04388.
    """

    kind: Literal["distance_bins"] = "distance_bins"
    rotated: bool = True

    scope: ClassVar[Literal["pair"]] = "pair"

    def __call__(self, preds: Predictions, targets: Targets, pairs: Assignment) -> Float[Tensor, " P"]:
        """Contribution of each pair.

        Raises:
            ShapeError: the predictions do not decode from distances.
        """
        if _num_bins(preds, "DistanceBins") == 1:
            return torch.zeros_like(pairs.weight)
        raw = preds.raw_at(pairs)
        wanted, strides = _wanted_distances(preds, targets, pairs, raw, self.rotated)
        missing = distance_cross_entropy(raw, _bins_at(preds, pairs, raw), wanted / strides[:, None])
        return torch.where(pairs.valid, missing, torch.zeros_like(missing)) * pairs.share


@component
class DistanceL1:
    """Mean absolute error of the four distances, in shares of the image, of a head with one bin.

    Weighted by the pair's quality. Left and right count in shares of the width, top and bottom of the height. `rotated`
    as in `DistanceBins`.

    Source: spec/losses F.2, a variant of the L1 term of DETR, Carion et al. 2020, arXiv:2005.12872.
    """

    kind: Literal["distance_l1"] = "distance_l1"
    rotated: bool = True

    scope: ClassVar[Literal["pair"]] = "pair"

    def __call__(self, preds: Predictions, targets: Targets, pairs: Assignment) -> Float[Tensor, " P"]:
        """Contribution of each pair.

        Raises:
            ShapeError: the predictions do not decode from distances, or have several bins.
        """
        bins = _num_bins(preds, "DistanceL1")
        if bins != 1:
            raise ShapeError(f"DistanceL1: expected a head with one bin, got {bins}; use DistanceBins for bins")
        raw = preds.raw_at(pairs)
        wanted, strides = _wanted_distances(preds, targets, pairs, raw, self.rotated)
        height, width = preds.image_size
        error = (raw * strides[:, None] - wanted) / constant((width, height, width, height), raw)
        missing = error.abs().mean(dim=-1)
        return torch.where(pairs.valid, missing, torch.zeros_like(missing)) * pairs.share


def in_unit(boxes: Float[Tensor, "P box"], preds: Predictions, pairs: Assignment, unit: Unit) -> Float[Tensor, "P box"]:
    """Pixel boxes of matched pairs in the unit an overlap is defined in; angles stay radians."""
    if unit == "pixel":
        return boxes
    if unit == "cell":
        sides = preds.cells.strides[pairs.anchor].to(boxes.dtype)[:, None]
    else:
        height, width = preds.image_size
        sides = constant((width, height, width, height), boxes)
    return torch.cat((boxes[:, :4] / sides, boxes[:, 4:]), dim=-1) if boxes.shape[-1] == 5 else boxes / sides


def _num_bins(preds: Predictions, term: str) -> int:
    if not isinstance(preds.decoder, Distance | Oriented):
        raise ShapeError(f"{term}: expected predictions with the decoder Distance or Oriented, got {preds.decoder!r}")
    return preds.decoder.num_bins


def _bins_at(preds: Predictions, pairs: Assignment, raw: Tensor) -> Bins:
    """Exponentials of the pairs' bins, computed once for all terms."""
    if preds.matched is None or preds.matched.pairs is not pairs:
        return Bins.of(raw)
    shared: Any = preds.matched.shared
    for name, values in zip(Bins._fields, () if "weights" in shared else Bins.of(raw), strict=False):
        shared[name] = values
    return Bins(*(shared[name] for name in Bins._fields))


def _boxes_at(preds: Predictions, pairs: Assignment) -> Tensor:
    """Boxes of the pairs as `Predictions.boxes_at` decodes them; distributions over distances share their softmax."""
    decoder = preds.decoder
    if not isinstance(decoder, Distance | Oriented) or decoder.num_bins == 1:
        return preds.boxes_at(pairs)
    raw = preds.raw_at(pairs)
    points, strides = (of[pairs.anchor].to(raw.dtype) for of in (preds.cells.points, preds.cells.strides))
    distances = mean_distance(raw, _bins_at(preds, pairs, raw)) * strides[:, None]
    if isinstance(decoder, Distance):
        return decode_distances(points, distances)
    if preds.angle is None:
        return preds.boxes_at(pairs)  # which says what is missing
    return decode_rotated(points, distances, rows_at(preds.angle, pairs))


def _wanted(targets: Targets, pairs: Assignment) -> Tensor:
    """Boxes of the pairs' objects, in planes."""
    return planes_at(targets.boxes.flatten(0, 1), slot_of(pairs, targets)).t()


def _wanted_distances(
    preds: Predictions, targets: Targets, pairs: Assignment, raw: Tensor, rotated: bool
) -> tuple[Tensor, Tensor]:
    """Distances of the true sides, px, and the stride of every pair."""
    wanted = _wanted(targets, pairs).to(raw.dtype)
    points, strides = (of[pairs.anchor].to(raw.dtype) for of in (preds.cells.points, preds.cells.strides))
    if targets.oriented and rotated:
        return encode_rotated(points, wanted), strides
    corners = cxcywh_to_xyxy(wanted[:, :4]) if targets.oriented else wanted
    return encode_distances(points, corners), strides
