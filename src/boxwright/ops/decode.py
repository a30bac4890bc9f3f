# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Raw box outputs to boxes: the one decoder of every head, dense or for chosen rows."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor

from boxwright.config import component
from boxwright.ops.distances import decode_distances, expected_distance


@component
class Distance:
    """Each side's distance from the cell centre, as a distribution over `num_bins` whole strides (1: the value itself).

    Raw layout: side-major, channel = side * num_bins + bin, sides left, top, right, bottom.

    Source: Generalized Focal Loss, Li et al. 2020, arXiv:2006.04388.
    """

    kind: Literal["distance"] = "distance"
    num_bins: int = 16

    def __call__(
        self,
        raw: Float[Tensor, "*n raw"],
        points: Float[Tensor, "*n 2"],
        strides: Float[Tensor, "*n"],
        extra: Float[Tensor, "*n"] | Float[Tensor, "*n 2"] | None = None,
    ) -> Float[Tensor, "*n 4"]:
        """Boxes, px xyxy, of raw outputs at points (px) with strides (px)."""
        return decode_distances(points, expected_distance(raw, self.num_bins) * strides[..., None])
