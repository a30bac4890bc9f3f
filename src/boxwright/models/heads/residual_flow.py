# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""An extra of newer pose heads: a small learned density of keypoint residuals."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn


class ResidualFlow(nn.Module):
    """Log density of 2-D residuals: a standard normal seen through invertible coupling layers.

    A head that owns one passes it on as `Predictions.keypoint_density`. It starts as the standard normal itself.

    Source: RealNVP, Dinh et al. 2016, arXiv:1605.08803; its use, Li et al. 2021, arXiv:2107.11291.
    """

    def __init__(self, layers: int = 6, hidden: int = 64) -> None:
        """Builds `layers` couplings, each with two networks of `hidden` channels."""
        super().__init__()
        self.scales = nn.ModuleList(_network(hidden) for _ in range(layers))
        self.shifts = nn.ModuleList(_network(hidden) for _ in range(layers))

    def forward(self, residuals: Float[Tensor, "n 2"]) -> Float[Tensor, " n"]:
        """Log density of each residual, in the dtype of the residuals."""
        kept, moved = residuals.to(next(self.parameters()).dtype).unsqueeze(-1).unbind(dim=1)
        volume = torch.zeros_like(kept)
        for scale, shift in zip(self.scales, self.shifts, strict=True):
            # Bounded, so that a layer changes volume by a factor e at most.
            stretch = torch.tanh(scale(kept))
            kept, moved = (moved - shift(kept)) * torch.exp(-stretch), kept
            volume = volume - stretch
        square = kept.square() + moved.square()
        log_density: Tensor = volume - 0.5 * square - math.log(2 * math.pi)
        return log_density.squeeze(1).to(residuals.dtype)


def _network(hidden: int) -> nn.Sequential:
    last = nn.Linear(hidden, 1)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(1, hidden), nn.LeakyReLU(), nn.Linear(hidden, hidden), nn.LeakyReLU(), last)
