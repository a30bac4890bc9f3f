# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The hybrid encoder: attention inside the coarsest map, then convolutions that mix all maps, up and back down.

Source: RT-DETR, Zhao et al. 2023, arXiv:2304.08069, section 4.2; RepVGG, Ding et al. 2021, arXiv:2101.03697;
spec/architectures 2.2 and 7.4.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from boxwright.config import component
from boxwright.errors import ConfigError
from boxwright.models.blocks import Concat, Conv, FoldedPair, Upsample
from boxwright.models.norms import NormName, set_norms
from boxwright.models.transformer import SelfAttention

TEMPERATURE = 10000.0  # ratio of the longest to the shortest wave of the position code


class AIFI(nn.Module):
    """One transformer layer among the cells of a map, norms after the sums; every cell's position helps to find it."""

    def __init__(self, width: int, hidden: int, heads: int) -> None:
        super().__init__()
        self.attention = SelfAttention(width, heads)
        self.norm1 = nn.LayerNorm(width)
        self.expand = nn.Linear(width, hidden)
        self.reduce = nn.Linear(hidden, width)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, x: Float[Tensor, "B d H W"]) -> Float[Tensor, "B d H W"]:
        """The map after attention and the two linear layers."""
        height, columns = int(x.shape[2]), int(x.shape[3])
        tokens = x.flatten(2).transpose(1, 2)
        position = _positions(height, columns, tokens).to(tokens.dtype)
        tokens = self.norm1(tokens + self.attention(tokens, position))
        tokens = self.norm2(tokens + self.reduce(nn.functional.gelu(self.expand(tokens))))
        return tokens.transpose(1, 2).unflatten(2, (height, columns))  # type: ignore[no-any-return]


class RepConv(FoldedPair):
    """The sum of a 3x3 and a 1x1 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, 3, 1)


class RepC3(nn.Module):
    """Two 1x1 convolutions; `RepConv` units follow the first, the second bypasses them; their sum.

    With `expand` below 1 all that is narrower, and a last 1x1 convolution widens it.
    """

    def __init__(self, inputs: int, outputs: int, depth: int, *, expand: float) -> None:
        super().__init__()
        hidden = int(outputs * expand)
        self.entry = Conv(inputs, hidden)
        self.bypass = Conv(inputs, hidden)
        self.units = nn.Sequential(*(RepConv(hidden) for _ in range(depth)))
        self.exit: nn.Module = Conv(hidden, outputs) if hidden != outputs else nn.Identity()

    def forward(self, x: Float[Tensor, "B i H W"]) -> Float[Tensor, "B o H W"]:
        """The sum after the last convolution."""
        return self.exit(self.units(self.entry(x)) + self.bypass(x))  # type: ignore[no-any-return]


class Hybrid(nn.Module):
    """Mixes the last L maps of a backbone; all it returns are `width` wide.

    `project` goes fine to coarse; `lateral`, `up` go coarse to fine; `halve`, `down` fine to coarse.
    """

    def __init__(self, config: "HybridConfig", channels: Sequence[int], strides: Sequence[int]) -> None:
        super().__init__()
        levels, width = config.levels, config.width

        def block() -> RepC3:
            return RepC3(2 * width, width, config.depth, expand=config.expand)

        self.project = nn.ModuleList(Conv(inputs, width, act="none") for inputs in list(channels)[-levels:])
        self.encode = AIFI(width, config.hidden, config.heads)
        self.lateral = nn.ModuleList(Conv(width, width) for _ in range(levels - 1))
        self.up = nn.ModuleList(block() for _ in range(levels - 1))
        self.halve = nn.ModuleList(Conv(width, width, 3, 2) for _ in range(levels - 1))
        self.down = nn.ModuleList(block() for _ in range(levels - 1))
        self.upsample, self.concat = Upsample(), Concat()
        self.channels = (width,) * levels
        self.strides = tuple(strides)[-levels:]
        set_norms(self, config.norm)

    @property
    def layers(self) -> tuple[nn.Module, ...]:
        """The parts in the order of the published layer table."""
        parts: list[nn.Module] = [self.project[-1], self.encode]
        for lateral, project, block in zip(self.lateral, list(self.project)[-2::-1], self.up, strict=True):
            parts += [lateral, self.upsample, project, self.concat, block]
        for halve, block in zip(self.halve, self.down, strict=True):
            parts += [halve, self.concat, block]
        return tuple(parts)

    def forward(self, maps: tuple[Float[Tensor, "B _ _ _"], ...]) -> tuple[Float[Tensor, "B d _ _"], ...]:
        """The last L maps, mixed."""
        *finer, x = (project(x) for project, x in zip(self.project, maps[-len(self.channels) :], strict=True))
        x = self.encode(x)
        kept = []
        for lateral, block in zip(self.lateral, self.up, strict=True):
            kept.append(lateral(x))
            x = block(self.concat(self.upsample(kept[-1]), finer.pop()))
        results = [x]
        for halve, block in zip(self.halve, self.down, strict=True):
            results.append(block(self.concat(halve(results[-1]), kept.pop())))
        return tuple(results)


@component
class HybridConfig:
    """Width of all maps, the transformer's inner width and heads, and the blocks that mix two maps."""

    kind: Literal["hybrid"] = "hybrid"
    width: int = 256
    hidden: int = 1024  # inner width of the transformer's linear layers
    heads: int = 8
    depth: int = 3  # units of each block
    expand: float = 1.0  # inner width of a block, as a share of the width
    levels: int = 3
    norm: NormName = "torch"

    def __post_init__(self) -> None:
        if self.width % 4 or self.width % self.heads:
            raise ConfigError(
                f"neck.width: expected a multiple of 4 (the position code) and of {self.heads} heads, got {self.width}"
            )

    def build(self, channels: Sequence[int], strides: Sequence[int]) -> Hybrid:
        """The module with fresh weights for a backbone with these channels and strides.

        Raises:
            ConfigError: more levels are asked for than the backbone has.
        """
        if not 1 <= self.levels <= len(channels):
            raise ConfigError(
                f"neck.levels: expected 1 to {len(channels)} (the backbone returns {len(channels)} maps), "
                f"got {self.levels}"
            )
        return Hybrid(self, channels, strides)


def position_code(height: int, columns: int, width: int) -> Float[Tensor, "T d"]:
    """Sine and cosine of x, then of y, for the cells of a map.

    Row t is the code of x = t // height, y = t % height, as published, while cell t lies in column t % columns: on maps
    that are wider than high the code is no picture of the place, but every cell still has one of its own.
    """
    waves = TEMPERATURE ** (-torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    index = torch.arange(height * columns)
    x, y = torch.div(index, height, rounding_mode="floor"), index % height
    angles = (x[:, None] * waves, y[:, None] * waves)
    return torch.cat([part for angle in angles for part in (angle.sin(), angle.cos())], dim=-1)


def _positions(height: int, columns: int, like: Tensor) -> Tensor:
    """(1, T, d) in float32, or float64 for float64."""
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    width = int(like.shape[2])
    if type(like) is not Tensor:  # traced or fake tensors must not meet a table kept from another call
        return position_code(height, columns, width).to(like.device, dtype)[None]
    return _kept_positions(height, columns, width, like.device, dtype)


@lru_cache(maxsize=64)  # a few hundred kB each
def _kept_positions(height: int, columns: int, width: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False):  # the next caller may be a training step
        return position_code(height, columns, width).to(device, dtype)[None]
