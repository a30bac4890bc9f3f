# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""One cross-stage-partial backbone: a stem, stages that halve the size, pooled context; widths and depths are data.

Source: CSPNet, Wang et al. 2020, arXiv:1911.11929; layer table of spec/architectures 4.2.
"""

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from boxwright.config import component
from boxwright.errors import ConfigError
from boxwright.models.blocks import SPPF, BlockName, Conv, make_block


class CSP(nn.Module):
    """Stem at stride 2, then a halving Conv and a block per stage, SPPF at the end."""

    def __init__(self, config: "CSPConfig") -> None:
        super().__init__()
        stem, *widths = config.widths
        parts: list[nn.Module] = [Conv(3, stem, 3, 2)]
        before = stem
        for width, depth in zip(widths, config.depths, strict=True):
            parts.append(Conv(before, width, 3, 2))
            parts.append(make_block(config.block, width, width, depth, shortcut=True))
            before = width
        parts.append(SPPF(before, before))
        self.layers = nn.ModuleList(parts)
        self.channels = tuple(widths)
        self.strides = tuple(4 * 2**i for i in range(len(widths)))

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, "B _ _ _"], ...]:
        """Every stage's map, fine to coarse; the last one after SPPF."""
        stem, *stages, context = self.layers
        x = stem(images)
        maps = []
        for down, block in zip(stages[::2], stages[1::2], strict=True):
            x = block(down(x))
            maps.append(x)
        return (*maps[:-1], context(x))


@component
class CSPConfig:
    """Widths of the stem and of each stage (strides 4, 8, 16, ...), and how often each block repeats its unit."""

    kind: Literal["csp"] = "csp"
    block: BlockName = "c2f"
    widths: tuple[int, ...] = (16, 32, 64, 128, 256)
    depths: tuple[int, ...] = (1, 2, 2, 1)

    def __post_init__(self) -> None:
        if len(self.widths) != len(self.depths) + 1 or not self.depths:
            raise ConfigError(
                f"backbone.widths: expected one width for the stem and one per depth, "
                f"got {len(self.widths)} widths for {len(self.depths)} depths"
            )
        if min(self.widths) < 1 or min(self.depths) < 0:
            raise ConfigError(
                f"backbone: widths must be positive and depths not negative, got {self.widths}, {self.depths}"
            )

    def build(self) -> CSP:
        """The module with fresh weights."""
        return CSP(self)
