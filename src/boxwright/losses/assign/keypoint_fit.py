# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Keypoint similarity in place of the overlap of boxes."""

from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from boxwright.config import component
from boxwright.errors import ShapeError
from boxwright.ops.constants import constant
from boxwright.ops.keypoints import decode_keypoints, keypoint_errors, keypoint_sigmas
from boxwright.structures import Predictions, Targets, at_least_float32

AREA_SHARE = 0.53  # of the box that the object itself fills, on average


@component
class KeypointFit:
    """Mean similarity of an object's visible keypoints with the predicted ones; the box overlap where none is visible.

    Source: object keypoint similarity of COCO, Ronchi and Perona 2017, arXiv:1707.05388; as an assigner's measure,
    spec/losses F.7.
    """

    kind: Literal["keypoint_fit"] = "keypoint_fit"
    # Spread of each keypoint, in shares of the object's side; None: COCO's for 17 keypoints of 3 values, else 1 / K.
    sigmas: tuple[float, ...] | None = None

    def __call__(
        self,
        preds: Predictions,
        targets: Targets,
        image: Int64[Tensor, "*p"],
        anchor: Int64[Tensor, "*p"],
        target: Int64[Tensor, "*p"],
        overlap: Float[Tensor, "*p"],
    ) -> Float[Tensor, "*p"]:
        """The fit of each pair.

        Raises:
            ShapeError: predictions or targets without keypoints, or of different numbers of them.
        """
        if preds.keypoints_raw is None or targets.keypoints is None:
            where = "Predictions.keypoints_raw" if preds.keypoints_raw is None else "Targets.keypoints"
            raise ShapeError(f"{where}: expected keypoints for KeypointFit, got None")
        raw = at_least_float32(preds.keypoints_raw[image, anchor])
        count, values = raw.shape[-2:]
        if targets.keypoints.shape[2] != count:
            raise ShapeError(
                f"Targets.keypoints: expected (B, M, {count}, 3) for the {count} keypoints of the predictions, "
                f"got {tuple(targets.keypoints.shape)}"
            )
        grid = preds.cells
        points, strides = grid.points[anchor].to(raw.dtype), grid.strides[anchor].to(raw.dtype)
        places = decode_keypoints(raw[..., :2], points, strides, preds.keypoint_form)
        label = targets.keypoints[image, target].to(raw.dtype)
        visible = label[..., 2] != 0
        x1, y1, x2, y2 = targets.boxes[image, target].to(raw.dtype).unbind(dim=-1)
        area = AREA_SHARE * (x2 - x1) * (y2 - y1)
        sigmas = constant(keypoint_sigmas(count, values, self.sigmas), raw)
        # Not one minus the misses: a small similarity would become 0, which cannot match.
        similar = torch.exp(-keypoint_errors(places, label[..., :2], visible, area, sigmas))
        seen = visible.sum(dim=-1)
        mean = torch.where(visible, similar, torch.zeros_like(similar)).sum(dim=-1) / seen.clamp(min=1)
        return torch.where(seen > 0, mean, overlap)
