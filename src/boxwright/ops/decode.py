# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Raw box outputs to boxes: the one decoder of every head, dense or for chosen rows."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from boxwright.config import component
from boxwright.errors import ShapeError
from boxwright.ops.boxes import cxcywh_to_xyxy
from boxwright.ops.distances import decode_distances, decode_rotated, expected_distance


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


@component
class Oriented:
    """Distances as in `Distance`, measured in the frame of a box turned by the head's angle around its centre.

    The angle (`Predictions.angle`, radians) comes as `extra`; the w axis points along (cos, sin) of it.

    Source: distances of FCOS, Tian et al. 2019, arXiv:1904.01355, in a turned frame as YOLOv8's oriented heads do.
    """

    kind: Literal["oriented"] = "oriented"
    num_bins: int = 16

    def __call__(
        self,
        raw: Float[Tensor, "*n raw"],
        points: Float[Tensor, "*n 2"],
        strides: Float[Tensor, "*n"],
        extra: Float[Tensor, "*n"] | Float[Tensor, "*n 2"] | None = None,
    ) -> Float[Tensor, "*n 5"]:
        """Boxes, px cx cy w h and radians, of raw outputs at points (px) with strides (px) and angles (radians).

        Raises:
            ShapeError: there are no angles.
        """
        if extra is None or extra.shape != strides.shape:
            got = "None" if extra is None else str(tuple(extra.shape))
            raise ShapeError(f"Predictions.angle: expected one angle for each candidate of an oriented head, got {got}")
        return decode_rotated(points, expected_distance(raw, self.num_bins) * strides[..., None], extra)


@component
class Normalized:
    """Boxes as (cx, cy, w, h) in shares of the image's width and height: what queries give after their sigmoid.

    `Predictions` hands it the image's (W, H) as the point and 1 as the stride of every query.

    Source: DETR, Carion et al. 2020, arXiv:2005.12872.
    """

    kind: Literal["normalized"] = "normalized"

    def __call__(
        self,
        raw: Float[Tensor, "*n 4"],
        points: Float[Tensor, "*n 2"],
        strides: Float[Tensor, "*n"],
        extra: Float[Tensor, "*n"] | Float[Tensor, "*n 2"] | None = None,
    ) -> Float[Tensor, "*n 4"]:
        """Boxes, px xyxy, of raw outputs in images of size `points` (px)."""
        return cxcywh_to_xyxy(raw * torch.cat((points, points), dim=-1))


@component
class Anchor:
    """Centre and size relative to a cell and its prior (anchor): the raw values (x, y, w, h) go through a sigmoid s.

    Centre = corner of the cell + (2 s - 0.5) strides, size = prior * (2 s)^2: centres reach half a cell beyond the
    cell, sizes four times the prior.

    Source: spec/losses E.1, as YOLOv5 decodes; priors as in YOLO9000, arXiv:1612.08242.
    """

    kind: Literal["anchor"] = "anchor"

    def in_cells(self, raw: Float[Tensor, "*n 4"], priors: Float[Tensor, "*n 2"]) -> Float[Tensor, "*n 4"]:
        """Boxes (cx, cy, w, h) in cells, relative to the corner of the cell, for priors in cells."""
        double = raw.sigmoid() * 2
        return torch.cat((double[..., :2] - 0.5, double[..., 2:].square() * priors), dim=-1)

    def __call__(
        self,
        raw: Float[Tensor, "*n 4"],
        points: Float[Tensor, "*n 2"],
        strides: Float[Tensor, "*n"],
        extra: Float[Tensor, "*n"] | Float[Tensor, "*n 2"] | None = None,
    ) -> Float[Tensor, "*n 4"]:
        """Boxes, px xyxy, of raw outputs at points (px) with strides (px) and priors `extra` (px).

        Raises:
            ShapeError: there are no priors.
        """
        if extra is None:
            raise ShapeError("Anchor: expected a grid with priors (`make_grid(..., priors=...)`), got none")
        double = raw.sigmoid() * 2
        centre = points + (double[..., :2] - 1) * strides[..., None]
        return cxcywh_to_xyxy(torch.cat((centre, double[..., 2:].square() * extra), dim=-1))


@component
class Identity:
    """Boxes that are decoded already: what exported files give."""

    kind: Literal["identity"] = "identity"

    def __call__(
        self,
        raw: Float[Tensor, "*n box"],
        points: Float[Tensor, "*n 2"],
        strides: Float[Tensor, "*n"],
        extra: Float[Tensor, "*n"] | Float[Tensor, "*n 2"] | None = None,
    ) -> Float[Tensor, "*n box"]:
        """The boxes themselves, px xyxy, or px cx cy w h and radians."""
        return raw
