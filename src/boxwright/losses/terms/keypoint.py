# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Terms on the keypoints of matched pairs: where they are, whether they are seen, and how sure the head is."""

import math
from typing import ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from boxwright.config import component
from boxwright.errors import ShapeError
from boxwright.losses.functional import bce_with_logits
from boxwright.losses.terms.base import Divisor, Scope
from boxwright.ops.collective import sum_over_ranks
from boxwright.ops.constants import constant
from boxwright.ops.keypoints import decode_keypoints, keypoint_misses, keypoint_sigmas
from boxwright.structures import Assignment, Predictions, Targets, rows_at

COUNT_EPSILON = 1e-9  # keypoints; an object without a visible one contributes 0 (spec/losses D.11)
SPREAD_EPSILON = 1e-9  # cells
FARTHEST = 100.0  # spreads; residuals are clamped here
# Elbows, wrists, knees and ankles of the 17 COCO keypoints are harder than the rest.
COCO_LIKELIHOOD_WEIGHTS = (1.0,) * 7 + (1.2, 1.2, 1.5, 1.5, 1.0, 1.0, 1.2, 1.2, 1.5, 1.5)


@component
class KeypointLocation:
    """One minus the object keypoint similarity, mean over the keypoints of all pairs of the batch.

    Each pair counts K / (its visible keypoints) times, so that hidden ones do not make it lighter; a pair without a
    visible keypoint contributes 0 and still counts in the mean. Not weighted by the pair's quality.

    Source: YOLO-Pose, Maji et al. 2022, arXiv:2204.06806, eq. 3. Deviation: the factor for hidden keypoints, and the
    area of the box instead of the segment's; as YOLOv8 trains.
    """

    kind: Literal["keypoint_location"] = "keypoint_location"
    # Spread of each keypoint, in shares of the box's side; None: COCO's for 17 keypoints of 3 values, else 1 / K.
    sigmas: tuple[float, ...] | None = None

    scope: ClassVar[Scope] = "pair"
    divides_by: ClassVar[Divisor] = "own"

    def __call__(self, preds: Predictions, targets: Targets, pairs: Assignment) -> Float[Tensor, " P"]:
        """Contribution of each pair.

        Raises:
            ShapeError: predictions or targets without keypoints, or of different numbers of them.
            ConfigError: as many sigmas as keypoints were expected.
        """
        matched = MatchedKeypoints.of(preds, targets, pairs)
        sigmas = self.spreads(matched.raw)
        stride = preds.cells.strides[pairs.anchor].to(sigmas.dtype)
        x1, y1, x2, y2 = targets.boxes[pairs.image, pairs.target].to(sigmas.dtype).unbind(dim=-1)
        area = torch.where(pairs.valid, (x2 - x1) * (y2 - y1) / stride**2, torch.ones_like(stride))  # square cells
        missed = keypoint_misses(matched.points, matched.wanted, matched.visible, area, sigmas)
        return mean_over_keypoints(missed.sum(dim=1), matched.visible, pairs)

    def spreads(self, raw: Float[Tensor, "P K D"]) -> Float[Tensor, " K"]:
        """Sigma of each keypoint.

        Raises:
            ConfigError: as many sigmas as keypoints were expected.
        """
        return constant(keypoint_sigmas(raw.shape[1], raw.shape[2], self.sigmas), raw)


@component
class KeypointVisibility:
    """Binary cross-entropy of each keypoint's visibility, mean over the keypoints of all pairs of the batch.

    Labels 1 (hidden but placed) and 2 (seen) are both visible. Silent (zero) for a head with x and y only.

    Source: YOLO-Pose, Maji et al. 2022, arXiv:2204.06806, eq. 4.
    """

    kind: Literal["keypoint_visibility"] = "keypoint_visibility"

    scope: ClassVar[Scope] = "pair"
    divides_by: ClassVar[Divisor] = "own"

    def __call__(self, preds: Predictions, targets: Targets, pairs: Assignment) -> Float[Tensor, " P"]:
        """Contribution of each pair.

        Raises:
            ShapeError: predictions or targets without keypoints, or of different numbers of them.
        """
        matched = MatchedKeypoints.of(preds, targets, pairs)
        if matched.raw.shape[2] < 3:
            return torch.zeros_like(pairs.weight)
        seen = matched.raw[..., 2]
        missed = bce_with_logits(seen, matched.visible.to(seen.dtype)).mean(dim=1)
        return torch.where(pairs.valid, missed, torch.zeros_like(missed)) / positives(pairs, missed)


@component
class KeypointLikelihood:
    """Negative log-likelihood of each visible keypoint's residual under the head's own spread and learned density.

    The head gives a spread for both coordinates (`Predictions.keypoint_scale`) and the log density of residuals in
    spreads (`Predictions.keypoint_density`), which learns what a Laplace distribution leaves out. Mean over the visible
    keypoints of the batch; never below zero: while the mean is negative the term is silent.

    Source: residual log-likelihood estimation, Li et al. 2021, arXiv:2107.11291; spec/losses F.7.
    """

    kind: Literal["keypoint_likelihood"] = "keypoint_likelihood"
    weights: tuple[float, ...] | None = None  # of each keypoint; None: COCO's for 17 keypoints, else 1

    scope: ClassVar[Scope] = "pair"
    divides_by: ClassVar[Divisor] = "own"

    def __call__(self, preds: Predictions, targets: Targets, pairs: Assignment) -> Float[Tensor, " P"]:
        """Contribution of each pair.

        Raises:
            ShapeError: predictions without keypoints, spreads or density, targets without keypoints, or numbers of
                keypoints that differ.
        """
        if preds.keypoint_scale is None or preds.keypoint_density is None:
            raise ShapeError(
                "Predictions: KeypointLikelihood expected `keypoint_scale` (B, A, K, 2) and `keypoint_density`, got "
                f"{'no density' if preds.keypoint_density is None else 'no spreads'} for role '{preds.role}'"
            )
        matched = MatchedKeypoints.of(preds, targets, pairs)
        raw_spread = rows_at(preds.keypoint_scale, pairs).to(matched.raw.dtype)
        gap = matched.points - matched.wanted
        with torch.no_grad():
            counts = matched.visible & (_residual(gap, raw_spread) + raw_spread).isfinite().all(dim=-1)
        # What does not count is cut off before the division: its gradient would be 0 * NaN.
        gap, raw_spread = (torch.where(counts[..., None], x, torch.zeros_like(x)) for x in (gap, raw_spread))
        residual = _residual(gap, raw_spread)
        log_density = preds.keypoint_density(residual.flatten(0, 1)).view(counts.shape)
        # ln s + ln 2s + |r|, minus the density once for each of the two coordinates.
        per_axis = 2 * functional.logsigmoid(raw_spread) + math.log(2) + residual.abs()
        cost = (per_axis.sum(dim=-1) - 2 * log_density) * constant(self._weights(counts.shape[1]), residual)
        cost = torch.where(counts, cost, torch.zeros_like(cost)).sum(dim=1)
        rows = sum_over_ranks(counts.sum().to(cost.dtype)).clamp(min=1)
        total = sum_over_ranks(cost.detach().sum())
        return torch.where(total > 0, cost / rows, torch.zeros_like(cost))

    def _weights(self, count: int) -> tuple[float, ...]:
        if self.weights is None:
            return COCO_LIKELIHOOD_WEIGHTS if count == len(COCO_LIKELIHOOD_WEIGHTS) else (1.0,) * count
        if len(self.weights) != count:
            raise ShapeError(f"KeypointLikelihood.weights: expected {count}, one for each keypoint, got {self.weights}")
        return self.weights


def _residual(gap: Tensor, raw_spread: Tensor) -> Tensor:
    return (gap / (torch.sigmoid(raw_spread) + SPREAD_EPSILON)).clamp(-FARTHEST, FARTHEST)


class MatchedKeypoints(NamedTuple):
    """Keypoints of the pairs, in cells of each pair's level."""

    raw: Float[Tensor, "P K D"]
    points: Float[Tensor, "P K 2"]
    wanted: Float[Tensor, "P K 2"]
    visible: Bool[Tensor, "P K"]  # False where a pair is not valid

    @classmethod
    def of(cls, preds: Predictions, targets: Targets, pairs: Assignment) -> "MatchedKeypoints":
        """The keypoints of the pairs.

        Raises:
            ShapeError: predictions or targets without keypoints, or of different numbers of them.
        """
        raw = preds.keypoints_at(pairs)
        label = checked_labels(raw, targets)[pairs.image, pairs.target]
        stride = preds.cells.strides[pairs.anchor].to(raw.dtype)
        centre = preds.cells.points[pairs.anchor].to(raw.dtype) / stride[:, None]
        points = decode_keypoints(raw[..., :2], centre, torch.ones_like(stride), preds.keypoint_form)
        visible = (label[..., 2] != 0) & pairs.valid[:, None]
        return cls(raw, points, label[..., :2].to(raw.dtype) / stride[:, None, None], visible)


def mean_over_keypoints(
    missed: Float[Tensor, " P"], visible: Bool[Tensor, "P K"], pairs: Assignment
) -> Float[Tensor, " P"]:
    """Each pair's share of the mean over all keypoints, from its sum; hidden keypoints make no pair lighter."""
    count = visible.shape[1]
    factor = count / (visible.sum(dim=1, dtype=missed.dtype) + COUNT_EPSILON)
    return missed * factor / (count * positives(pairs, missed))


def checked_labels(raw: Float[Tensor, "P K D"], targets: Targets) -> Float[Tensor, "B M K 3"]:
    """The labelled keypoints.

    Raises:
        ShapeError: there are none, or not as many as predicted.
    """
    if targets.keypoints is None:
        raise ShapeError(f"Targets.keypoints: expected (B, M, {raw.shape[1]}, 3), got None")
    if targets.keypoints.shape[2:] != (raw.shape[1], 3):
        raise ShapeError(
            f"Targets.keypoints: expected (B, M, {raw.shape[1]}, 3) for the {raw.shape[1]} keypoints of the "
            f"predictions, got {tuple(targets.keypoints.shape)}"
        )
    return targets.keypoints


def positives(pairs: Assignment, like: Tensor) -> Float[Tensor, ""]:
    """Pairs of the batch over all ranks, at least 1."""
    return sum_over_ranks(pairs.valid.sum().to(like.dtype)).clamp(min=1)
