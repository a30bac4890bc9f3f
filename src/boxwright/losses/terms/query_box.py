# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Box terms of set prediction, on (cx, cy, w, h) in shares of the image."""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from boxwright.config import component
from boxwright.losses.normalized_boxes import matched_boxes, true_boxes
from boxwright.losses.terms.base import Divisor, Scope
from boxwright.ops.overlap import OverlapName, paired_overlap
from boxwright.structures import Assignment, Predictions, Targets


@component
class BoxL1:
    """Sum of the absolute differences of the four numbers of each matched pair.

    Source: DETR, Carion et al. 2020, arXiv:2005.12872.
    """

    kind: Literal["box_l1"] = "box_l1"

    scope: ClassVar[Scope] = "pair"
    divides_by: ClassVar[Divisor] = "assignment"

    def __call__(self, preds: Predictions, targets: Targets, pairs: Assignment) -> Float[Tensor, " P"]:
        """Contribution of each pair."""
        error = matched_boxes(preds, pairs) - true_boxes(preds, targets, pairs.image, pairs.target)
        missing = error.abs().sum(dim=-1)
        return torch.where(pairs.valid, missing, torch.zeros_like(missing)) * pairs.share


@component
class QueryOverlap:
    """One minus the overlap of each matched pair; sides are taken as they are, as the centre form defines overlaps.

    Source: GIoU, Rezatofighi et al. 2019, arXiv:1902.09630; as in DETR, arXiv:2005.12872.
    """

    kind: Literal["query_overlap"] = "query_overlap"
    overlap: OverlapName = "giou"

    scope: ClassVar[Scope] = "pair"
    divides_by: ClassVar[Divisor] = "assignment"

    def __call__(self, preds: Predictions, targets: Targets, pairs: Assignment) -> Float[Tensor, " P"]:
        """Contribution of each pair."""
        true = true_boxes(preds, targets, pairs.image, pairs.target)
        # An unused slot compares a box with itself: any number there would do that has finite slopes.
        matched = torch.where(pairs.valid[:, None], matched_boxes(preds, pairs), true)
        missing = 1 - paired_overlap(matched, true, self.overlap, "cxcywh")
        return torch.where(pairs.valid, missing, torch.zeros_like(missing)) * pairs.share
