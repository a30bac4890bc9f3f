# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Terms on the matched boxes, axis-aligned or oriented: overlap, and the distances of the sides."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from boxwright.config import component
from boxwright.errors import ConfigError, ShapeError
from boxwright.losses.functional import distribution_focal
from boxwright.losses.terms.base import Divisor, Scope
from boxwright.ops.box_losses import NWD_SCALE, SIMILARITY_NAMES, BoxSimilarityName, box_similarity, inner_change
from boxwright.ops.boxes import cxcywh_to_xyxy
from boxwright.ops.constants import constant
from boxwright.ops.decode import Distance, Oriented
from boxwright.ops.distances import encode_distances, encode_rotated
from boxwright.ops.overlap import OverlapName, paired_overlap
from boxwright.ops.probiou import paired_probiou
from boxwright.structures import Assignment, Grid, Predictions, Targets

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

    scope: ClassVar[Scope] = "pair"
    divides_by: ClassVar[Divisor] = "assignment"

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
        return self.contributions(preds.boxes_at(pairs), targets.boxes[pairs.image, pairs.target], preds, pairs)

    def contributions(
        self,
        matched: Float[Tensor, "P box"],
        wanted: Float[Tensor, "P true_box"],
        preds: Predictions,
        pairs: Assignment,
    ) -> Float[Tensor, " P"]:
        """(1 - overlap) * weight / normalizer of each pair, from its predicted and its true box, px.

        Raises:
            ShapeError: the overlap is not one of the targets' or the predictions' kind of boxes.
        """
        wanted = wanted.to(matched.dtype)
        self._check(matched, wanted)
        unit: Unit = "pixel" if self.overlap in SIMILARITY_NAMES else self.unit
        matched, wanted = in_unit((matched, wanted), preds, pairs, unit)
        if self.overlap == "probiou":
            # A box without extent under an unused slot would meet the bounds of the definition with infinite slopes.
            matched = torch.where(pairs.valid[:, None], matched, torch.ones_like(matched))
            missing = 1 - paired_probiou(matched, wanted, self.cov_floor)
        else:
            missing = 1 - self._similarity(matched, wanted, preds)
        return torch.where(pairs.valid, missing, torch.zeros_like(missing)) * pairs.share

    def _check(self, matched: Tensor, wanted: Tensor) -> None:
        numbers = 5 if self.overlap == "probiou" else 4
        for field, boxes in (("Predictions", matched), ("Targets", wanted)):
            if boxes.shape[-1] != numbers:
                raise ShapeError(
                    f"BoxOverlap.overlap: '{self.overlap}' expects boxes of {numbers} numbers, got {field} with "
                    f"{boxes.shape[-1]}"
                )

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

    scope: ClassVar[Scope] = "pair"
    divides_by: ClassVar[Divisor] = "assignment"

    def __call__(self, preds: Predictions, targets: Targets, pairs: Assignment) -> Float[Tensor, " P"]:
        """Contribution of each pair.

        Raises:
            ShapeError: the predictions do not decode from distances.
        """
        if num_bins(preds, "DistanceBins") == 1:
            return torch.zeros_like(pairs.weight)
        raw, grid = preds.raw_at(pairs), preds.cells
        wanted = true_distances(targets.boxes[pairs.image, pairs.target].to(raw.dtype), grid, pairs, self.rotated)
        stride = grid.strides[pairs.anchor, None].to(raw.dtype)
        missing = distribution_focal(raw, wanted / stride)
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

    scope: ClassVar[Scope] = "pair"
    divides_by: ClassVar[Divisor] = "assignment"

    def __call__(self, preds: Predictions, targets: Targets, pairs: Assignment) -> Float[Tensor, " P"]:
        """Contribution of each pair.

        Raises:
            ShapeError: the predictions do not decode from distances, or have several bins.
        """
        return self.contributions(targets.boxes[pairs.image, pairs.target], preds, pairs)

    def contributions(
        self, wanted: Float[Tensor, "P box"], preds: Predictions, pairs: Assignment
    ) -> Float[Tensor, " P"]:
        """|distance - true distance| as a share of the image, mean over the sides, from the true boxes, px.

        Raises:
            ShapeError: the predictions do not decode from distances, or have several bins.
        """
        bins = num_bins(preds, "DistanceL1")
        if bins != 1:
            raise ShapeError(f"DistanceL1: expected a head with one bin, got {bins}; use DistanceBins for bins")
        raw, grid = preds.raw_at(pairs), preds.cells
        stride = grid.strides[pairs.anchor, None].to(raw.dtype)
        height, width = preds.image_size
        error = raw * stride - true_distances(wanted.to(raw.dtype), grid, pairs, self.rotated)
        missing = (error / constant((width, height, width, height), raw)).abs().mean(dim=-1)
        return torch.where(pairs.valid, missing, torch.zeros_like(missing)) * pairs.share


def in_unit(
    boxes: Sequence[Float[Tensor, "P box"]], preds: Predictions, pairs: Assignment, unit: Unit
) -> list[Float[Tensor, "P box"]]:
    """Pixel boxes of matched pairs, several of each, in the unit an overlap is defined in; angles stay radians."""
    if unit == "pixel":
        return list(boxes)
    if unit == "cell":
        sides = preds.cells.strides[pairs.anchor].to(boxes[0].dtype)[:, None]
    else:
        height, width = preds.image_size
        sides = constant((width, height, width, height), boxes[0])
    return [
        torch.cat((part[:, :4] / sides, part[:, 4:]), dim=-1) if part.shape[-1] == 5 else part / sides for part in boxes
    ]


def num_bins(preds: Predictions, term: str) -> int:
    """Bins of each distance.

    Raises:
        ShapeError: the predictions do not decode from distances; naming the term.
    """
    if not isinstance(preds.decoder, Distance | Oriented):
        raise ShapeError(f"{term}: expected predictions with the decoder Distance or Oriented, got {preds.decoder!r}")
    return preds.decoder.num_bins


def true_distances(
    wanted: Float[Tensor, "P box"], grid: Grid, pairs: Assignment, rotated: bool
) -> Float[Tensor, "P 4"]:
    """Distances, px, from the cell of each pair to the sides of its true box (px), in the dtype of the boxes.

    Of oriented boxes in their own frame, or, when not `rotated`, to the upright box of the same centre and sides.
    """
    points = grid.points[pairs.anchor].to(wanted.dtype)
    if wanted.shape[-1] == 5 and rotated:
        return encode_rotated(points, wanted)
    return encode_distances(points, cxcywh_to_xyxy(wanted[:, :4]) if wanted.shape[-1] == 5 else wanted)
