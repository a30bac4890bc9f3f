# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""No neck: the head reads the backbone's maps. For layer tables, which bring their own, and for plain pyramids.

Source: spec/architectures 3.2, where backbone and neck are one table.
"""

from collections.abc import Sequence
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from boxwright.config import component
from boxwright.errors import ConfigError


class NoNeck(nn.Module):
    """Passes the last `levels` maps on; all of them when that is None."""

    layers: tuple[nn.Module, ...] = ()

    def __init__(self, levels: int | None, channels: Sequence[int], strides: Sequence[int]) -> None:
        super().__init__()
        self.first = 0 if levels is None else len(channels) - levels
        self.channels, self.strides = tuple(channels)[self.first :], tuple(strides)[self.first :]

    def forward(self, maps: tuple[Float[Tensor, "B _ _ _"], ...]) -> tuple[Float[Tensor, "B _ _ _"], ...]:
        """The maps as they are."""
        return maps[self.first :]


@component
class NoNeckConfig:
    """The head reads the last `levels` maps of the backbone, or all."""

    kind: Literal["none"] = "none"
    levels: int | None = None

    def build(self, channels: Sequence[int], strides: Sequence[int]) -> NoNeck:
        """The module, which has no weights.

        Raises:
            ConfigError: more levels are asked for than the backbone has.
        """
        if self.levels is not None and not 1 <= self.levels <= len(channels):
            raise ConfigError(f"neck.levels: expected 1 to {len(channels)}, got {self.levels}")
        return NoNeck(self.levels, channels, strides)
