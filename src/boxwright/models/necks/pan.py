# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""One path-aggregation neck: coarse maps flow up to fine ones, then back down; block, depth and widths are data.

Source: PANet, Liu et al. 2018, arXiv:1803.01534; layer table of spec/architectures 4.2.
"""

from collections.abc import Sequence
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from boxwright.config import component
from boxwright.errors import ConfigError
from boxwright.models.blocks import BlockName, Concat, Conv, Upsample, make_block


class PAN(nn.Module):
    """Mixes the last L maps of a backbone; `channels` and `strides` describe the L maps it returns, fine to coarse."""

    def __init__(self, config: "PANConfig", channels: Sequence[int], strides: Sequence[int]) -> None:
        super().__init__()
        levels = len(config.widths)
        inputs, widths = list(channels)[-levels:], config.widths
        # Top-down: level L-1 is the backbone's own map, the others join what comes from above with the backbone's map.
        above = inputs[-1]
        self.up = nn.ModuleList()
        for level in reversed(range(levels - 1)):
            self.up.append(Upsample())
            self.up.append(Concat())
            self.up.append(make_block(config.block, above + inputs[level], widths[level], config.depth, shortcut=False))
            above = widths[level]
        # Bottom-up: each level joins the finer result, halved, with its own top-down map.
        self.down = nn.ModuleList()
        for level in range(1, levels):
            fine = widths[level - 1]
            own = widths[level] if level < levels - 1 else inputs[-1]
            self.down.append(Conv(fine, fine, 3, 2))
            self.down.append(Concat())
            self.down.append(make_block(config.block, fine + own, widths[level], config.depth, shortcut=False))
        self.channels = tuple(widths)
        self.strides = tuple(strides)[-levels:]

    @property
    def layers(self) -> tuple[nn.Module, ...]:
        """The parts in the order of the published layer table."""
        return (*self.up, *self.down)

    def forward(self, maps: tuple[Float[Tensor, "B _ _ _"], ...]) -> tuple[Float[Tensor, "B _ _ _"], ...]:
        """The last L maps, mixed."""
        *finer, x = maps[-len(self.channels) :]
        kept = [x]
        for up, join, block in _triples(self.up):
            x = block(join(up(x), finer.pop()))
            kept.append(x)
        results = [kept.pop()]
        for down, join, block in _triples(self.down):
            results.append(block(join(down(results[-1]), kept.pop())))
        return tuple(results)


@component
class PANConfig:
    """Widths of the L maps returned, fine to coarse, and how often each block repeats its unit."""

    kind: Literal["pan"] = "pan"
    block: BlockName = "c2f"
    widths: tuple[int, ...] = (64, 128, 256)
    depth: int = 1

    def build(self, channels: Sequence[int], strides: Sequence[int]) -> PAN:
        """The module with fresh weights for a backbone with these channels and strides.

        Raises:
            ConfigError: more levels are asked for than the backbone has.
        """
        if not 1 <= len(self.widths) <= len(channels):
            raise ConfigError(
                f"neck.widths: expected 1 to {len(channels)} levels (the backbone returns {len(channels)} maps), "
                f"got {len(self.widths)}"
            )
        return PAN(self, channels, strides)


def _triples(parts: nn.ModuleList) -> list[tuple[nn.Module, ...]]:
    modules = list(parts)
    return [tuple(modules[i : i + 3]) for i in range(0, len(modules), 3)]
