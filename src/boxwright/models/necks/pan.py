# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""One path-aggregation neck: coarse maps flow up to fine ones, then back down; blocks, depths and widths are data.

Source: PANet, Liu et al. 2018, arXiv:1803.01534; layer tables of spec/architectures 3.2, 4.2 and 5.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from boxwright.config import component
from boxwright.errors import ConfigError
from boxwright.models.blocks import Concat, Conv, Upsample
from boxwright.models.stages import BlockName, DownName, check_each, each, make_block, make_down


class PAN(nn.Module):
    """Mixes the last L maps of a backbone; `channels` and `strides` describe the L maps it returns, fine to coarse."""

    def __init__(self, config: "PANConfig", channels: Sequence[int], strides: Sequence[int]) -> None:
        super().__init__()
        levels = len(config.widths)
        inputs, widths = list(channels)[-levels:], config.widths
        blocks = _blocks(config)
        # Top-down: level L-1 is the backbone's own map, the others join what comes from above with the backbone's map.
        own = inputs[-1:]  # widths of what the way down joins, coarse to fine
        self.up = nn.ModuleList()
        for level in reversed(range(levels - 1)):
            if config.lateral:
                self.up.append(Conv(own[-1], widths[level]))
                own[-1] = widths[level]
            self.up.append(Upsample())
            self.up.append(Concat())
            name, depth = next(blocks)
            self.up.append(make_block(name, own[-1] + inputs[level], widths[level], depth, shortcut=False))
            own.append(widths[level])
        # Bottom-up: each level joins the finer result, halved, with its own top-down map.
        self.down = nn.ModuleList()
        for level in range(1, levels):
            fine = widths[level - 1]
            name, depth = next(blocks)
            self.down.append(make_down(each(config.down, level - 1), fine, fine))
            self.down.append(Concat())
            self.down.append(make_block(name, fine + own[-1 - level], widths[level], depth, shortcut=False))
        self.lateral = config.lateral
        self.channels = tuple(widths)
        self.strides = tuple(strides)[-levels:]

    @property
    def layers(self) -> tuple[nn.Module, ...]:
        """The parts in the order of the published layer table."""
        return (*self.up, *self.down)

    def forward(self, maps: tuple[Float[Tensor, "B _ _ _"], ...]) -> tuple[Float[Tensor, "B _ _ _"], ...]:
        """The last L maps, mixed."""
        *finer, x = maps[-len(self.channels) :]
        kept = []
        for *lateral, up, join, block in _groups(self.up, 4 if self.lateral else 3):
            for conv in lateral:
                x = conv(x)
            kept.append(x)
            x = block(join(up(x), finer.pop()))
        results = [x]
        for down, join, block in _groups(self.down, 3):
            results.append(block(join(down(results[-1]), kept.pop())))
        return tuple(results)


@component
class PANConfig:
    """Widths of the L maps returned, fine to coarse, which blocks mix them and how often each repeats its unit.

    What is one value or a list is for all blocks, or for each of the 2 (L - 1) in the order of the layer table: the way
    up to the finest level, then the way back.
    """

    kind: Literal["pan"] = "pan"
    block: BlockName | tuple[BlockName, ...] = "c2f"
    widths: tuple[int, ...] = (64, 128, 256)
    depth: int | tuple[int, ...] = 1
    lateral: bool = False  # a 1x1 convolution to the finer level's width before each upsampling, as in YOLOv5
    down: DownName | tuple[DownName, ...] = "conv"  # how the L - 1 maps on the way back are halved

    def __post_init__(self) -> None:
        levels = len(self.widths)
        for name in ("block", "depth"):
            check_each(f"neck.{name}", getattr(self, name), 2 * (levels - 1), "block")
        check_each("neck.down", self.down, levels - 1, "halving")

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


def _blocks(config: PANConfig) -> Iterator[tuple[BlockName, int]]:
    """Name and depth of every block, in the order of the layer table."""
    for index in range(2 * (len(config.widths) - 1)):
        yield each(config.block, index), each(config.depth, index)


def _groups(parts: nn.ModuleList, size: int) -> list[tuple[nn.Module, ...]]:
    modules = list(parts)
    return [tuple(modules[i : i + size]) for i in range(0, len(modules), size)]
