# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Stems of light backbones: what a layout may put in the place of a network's own first layer."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from boxwright.models.blocks import Conv, Focus

# "paper": the network's own; "pelee" and "focus": of strides 4 and 2, as published light YOLOv5 have them. The strides
# of a backbone follow from its stem. (Not a field called `stem`: switching kinds keeps fields of equal name.)
EntryName = Literal["paper", "pelee", "focus"]


def make_entry(name: Literal["pelee", "focus"], outputs: int) -> nn.Module:
    """A stem for pictures of three channels, by name."""
    return PeleeStem(3, outputs) if name == "pelee" else Focus(3, outputs)


class PoolStem(nn.Module):
    """A convolution of stride 2 with ReLU, and a max-pool of stride 2.

    Source: ShuffleNetV2, Ma et al. 2018, arXiv:1807.11164, table 5.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = Conv(inputs, outputs, 3, 2, act="relu")
        self.pool = nn.MaxPool2d(3, 2, 1)

    def forward(self, x: Float[Tensor, "B i H W"]) -> Float[Tensor, "B o h w"]:
        """The map at a quarter of the size."""
        return self.pool(self.conv(x))  # type: ignore[no-any-return]


class PeleeStem(nn.Module):
    """A convolution of stride 2; its map is halved once by convolutions and once by a max-pool, and both are mixed.

    Source: Pelee, Wang et al. 2018, arXiv:1804.06882, section 2.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = Conv(inputs, outputs, 3, 2)
        self.narrow = Conv(outputs, outputs // 2)
        self.down = Conv(outputs // 2, outputs, 3, 2)
        self.mix = Conv(2 * outputs, outputs)
        self.pool = nn.MaxPool2d(2, 2, ceil_mode=True)

    def forward(self, x: Float[Tensor, "B i H W"]) -> Float[Tensor, "B o h w"]:
        """The map at a quarter of the size."""
        x = self.first(x)
        return self.mix(torch.cat((self.down(self.narrow(x)), self.pool(x)), 1))  # type: ignore[no-any-return]
