# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The term on the angle of oriented boxes."""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from boxwright.config import component
from boxwright.errors import ConfigError, ShapeError
from boxwright.losses.terms.base import Divisor, Scope
from boxwright.structures import Assignment, Predictions, Targets, rows_at

SMALLEST = 1e-9  # cells; part of the definition


@component
class Angle:
    """Squared sine of twice the angle's error: silent at whole quarter turns. Weighted by the pair's quality.

    The factor exp(-(ln(w / h))^2 / elongation^2) of the true box is 1 for a square, whose Gaussian in the overlap term
    has no direction, and fades as the box grows longer, where the overlap itself turns it.

    Source: spec/losses F.3.
    """

    kind: Literal["angle"] = "angle"
    elongation: float = 3.0

    scope: ClassVar[Scope] = "pair"
    divides_by: ClassVar[Divisor] = "assignment"

    def __post_init__(self) -> None:
        if not self.elongation > 0:
            raise ConfigError(f"Angle.elongation: expected a positive number, got {self.elongation}")

    def __call__(self, preds: Predictions, targets: Targets, pairs: Assignment) -> Float[Tensor, " P"]:
        """Contribution of each pair.

        Raises:
            ShapeError: the predictions have no angle, or the targets are not oriented.
        """
        if preds.angle is None:
            raise ShapeError(f"Predictions.angle: expected (B, A) radians for the term Angle, got None ({preds.role})")
        if not targets.oriented:
            raise ShapeError(f"Targets.boxes: expected (B, M, 5) for the term Angle, got {tuple(targets.boxes.shape)}")
        theta = rows_at(preds.angle, pairs)
        wanted = targets.boxes[pairs.image, pairs.target].to(theta.dtype)
        strides = preds.cells.strides[pairs.anchor].to(theta.dtype)
        width, height = wanted[:, 2] / strides + SMALLEST, wanted[:, 3] / strides + SMALLEST
        square = torch.exp(-((torch.log(width / height) / self.elongation) ** 2))
        missing = square * torch.sin(2 * (theta - wanted[:, 4])) ** 2
        return torch.where(pairs.valid, missing, torch.zeros_like(missing)) * pairs.share
