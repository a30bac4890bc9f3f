# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Self-attention among the cells of a coarse map, and the blocks around it.

Source: YOLOv10, Wang et al. 2024, arXiv:2405.14458, section 3.3; spec/architectures 2.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from boxwright.models.blocks import Conv, dense, join

HEAD_WIDTH = 64  # channels of one attention head


class Attention(nn.Module):
    """Every cell reads all cells of the map; a depthwise convolution of the values says where they are.

    Keys and queries are half as wide as values. Channels of `qkv` go head by head: query, key, value.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.value_width = channels // heads
        self.key_width = self.value_width // 2
        self.qkv = Conv(channels, channels + 2 * self.key_width * heads, act="none")
        self.proj = Conv(channels, channels, act="none")
        self.position = Conv(channels, channels, 3, groups=channels, act="none")

    def forward(self, x: Float[Tensor, "B c H W"]) -> Float[Tensor, "B c H W"]:
        """What the cells read, projected."""
        batch, channels, height, width = x.shape
        parts = self.qkv(x).flatten(2).unflatten(1, (self.heads, -1))
        query, key, value = parts.split([self.key_width, self.key_width, self.value_width], 2)
        weights = torch.softmax((query.transpose(-2, -1) @ key) * self.key_width**-0.5, dim=-1)
        read = (value @ weights.transpose(-2, -1)).reshape(batch, channels, height, width)
        return self.proj(read + self.position(value.reshape(batch, channels, height, width)))  # type: ignore[no-any-return]


class PSABlock(nn.Module):
    """Attention and two 1x1 convolutions, each added to its input."""

    def __init__(self, channels: int, heads: int | None = None) -> None:
        super().__init__()
        self.attention = Attention(channels, heads_of(channels) if heads is None else heads)
        self.expand = Conv(channels, 2 * channels)
        self.reduce = Conv(2 * channels, channels, act="none")

    def forward(self, x: Float[Tensor, "B c H W"]) -> Float[Tensor, "B c H W"]:
        """The map after both steps."""
        x = x + self.attention(x)
        return x + self.reduce(self.expand(x))  # type: ignore[no-any-return]


class C2PSA(nn.Module):
    """A split convolution; its second half runs through attention blocks, both halves reach the exit."""

    def __init__(self, inputs: int, outputs: int, depth: int = 1) -> None:
        super().__init__()
        hidden = outputs // 2
        self.entry = Conv(inputs, 2 * hidden)
        self.exit = Conv(2 * hidden, outputs)
        self.units = nn.Sequential(*(PSABlock(hidden) for _ in range(depth)))

    def forward(self, x: Float[Tensor, "B i H W"]) -> Float[Tensor, "B o H W"]:
        """The joined halves after the exit convolution."""
        first, second = self.entry(x).chunk(2, 1)
        return self.exit(join([first, self.units(dense(second))]))  # type: ignore[no-any-return]


class PSA(C2PSA):
    """The same frame with one attention block, as YOLOv10 has it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 1)


def heads_of(channels: int) -> int:
    """Attention heads of a block so wide: one for every 64 channels, at least one."""
    return max(channels // HEAD_WIDTH, 1)
