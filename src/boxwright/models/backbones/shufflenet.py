# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""ShuffleNetV2: half of the channels pass a unit untouched, and the halves are shuffled after it.

Source: ShuffleNetV2, Ma et al. 2018, arXiv:1807.11164; layouts of spec/architectures 2.1 and 3.6.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from boxwright.config import component
from boxwright.errors import ConfigError
from boxwright.models.backbones.chain import Chain
from boxwright.models.backbones.stems import EntryName, PoolStem, make_entry
from boxwright.models.blocks import Conv, dense


class ShuffleUnit(nn.Module):
    """With stride 1 the second half of the channels is worked on; with stride 2 two branches see all of them."""

    def __init__(self, inputs: int, outputs: int, stride: Literal[1, 2]) -> None:
        super().__init__()
        half = outputs // 2
        self.stride = stride
        self.branch1 = nn.Sequential()
        if stride == 2:
            self.branch1 = nn.Sequential(Conv(inputs, inputs, 3, 2, inputs, act="none"), Conv(inputs, half, act="relu"))
        self.branch2 = nn.Sequential(
            Conv(inputs if stride == 2 else half, half, act="relu"),
            Conv(half, half, 3, stride, half, act="none"),
            Conv(half, half, act="relu"),
        )

    def forward(self, x: Float[Tensor, "B i H W"]) -> Float[Tensor, "B o h w"]:
        """Both branches, channel by channel in turn."""
        if self.stride == 2:
            return interleave(self.branch1(x), self.branch2(x))
        kept, worked = x.chunk(2, 1)
        return interleave(kept, self.branch2(dense(worked)))


def interleave(first: Float[Tensor, "B c H W"], second: Float[Tensor, "B c H W"]) -> Float[Tensor, "B o H W"]:
    """The channels of two maps in turn: what joining them and shuffling in 2 groups gives, in one copy.

    >>> maps = torch.arange(4.0).view(1, 4, 1, 1)
    >>> interleave(maps[:, :2], maps[:, 2:]).flatten().tolist()
    [0.0, 2.0, 1.0, 3.0]
    """
    if second.is_contiguous(memory_format=torch.channels_last):
        pair = torch.stack((first.permute(0, 2, 3, 1), second.permute(0, 2, 3, 1)), -1)
        return pair.flatten(3).permute(0, 3, 1, 2)
    return torch.stack((first, second), 2).flatten(1, 2)


@component
class ShuffleNetV2Config:
    """Widths of the stem and of the stages, and how many units each stage has; its first unit halves the map.

    The defaults are ShuffleNetV2-1.0x, with maps at strides 8, 16 and 32. An entry of stride 2 makes that 4, 8 and 16.
    """

    kind: Literal["shufflenet_v2"] = "shufflenet_v2"
    entry: EntryName = "paper"  # a convolution and a max-pool, together of stride 4
    entry_width: int = 24
    stage_widths: tuple[int, ...] = (116, 232, 464)
    stage_units: tuple[int, ...] = (4, 8, 4)

    def __post_init__(self) -> None:
        widths, units = self.stage_widths, self.stage_units
        if len(widths) != len(units) or not widths:
            raise ConfigError(
                f"backbone.stage_widths: expected one width for each of the {len(units)} stages of stage_units, "
                f"got {len(widths)}"
            )
        if any(width < 2 or width % 2 for width in widths):
            raise ConfigError(f"backbone.stage_widths: expected even widths, as stages work on halves, got {widths}")
        if self.entry_width < 2 or min(units) < 2:
            raise ConfigError(
                f"backbone: expected an entry_width and stage_units of at least 2, got {self.entry_width} and {units}"
            )

    def build(self) -> Chain:
        """The module with fresh weights."""
        before = self.entry_width
        layers: list[nn.Module] = [PoolStem(3, before) if self.entry == "paper" else make_entry(self.entry, before)]
        for width, units in zip(self.stage_widths, self.stage_units, strict=True):
            layers.append(ShuffleUnit(before, width, 2))
            layers.append(nn.Sequential(*(ShuffleUnit(width, width, 1) for _ in range(units - 1))))
            before = width
        return Chain(layers, range(2, len(layers), 2))
