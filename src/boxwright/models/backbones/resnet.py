# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Residual networks: the 18, 34, 50 and 101 layers of ResNet-D, and the plain 50 and 101 layers of v8-style RT-DETR.

Source: ResNet, He et al. 2015, arXiv:1512.03385; stem and shortcuts of "vd": Bag of Tricks, He et al. 2018,
arXiv:1812.01187; spec/architectures 2.2.
"""

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from boxwright.config import component
from boxwright.models.blocks import ActName, Conv
from boxwright.models.norms import NormName, set_norms

Depth = Literal[18, 34, 50, 101]
Variant = Literal["vd", "plain"]

_BLOCKS: dict[Depth, tuple[int, int, int, int]] = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
}
_WIDTHS = (64, 128, 256, 512)
_EXPAND = 4  # of the blocks of 50 layers and more
_INNER_ACT: dict[Variant, ActName] = {"vd": "relu", "plain": "silu"}


class Stem(nn.Sequential):
    """The layers before the stages, stride 4. A frozen one never learns, whatever is asked."""

    def __init__(self, variant: Variant, *, frozen: bool) -> None:
        first = (
            (Conv(3, 32, 3, 2, act="relu"), Conv(32, 32, 3, act="relu"), Conv(32, 64, 3, act="relu"))
            if variant == "vd"
            else (Conv(3, 64, 7, 2),)
        )
        super().__init__(*first, nn.MaxPool2d(3, 2, 1))
        self.frozen = frozen
        self.requires_grad_()

    def requires_grad_(self, requires_grad: bool = True) -> "Stem":
        """Makes the parameters trainable or not; those of a frozen stem never are."""
        super().requires_grad_(requires_grad and not self.frozen)
        return self


class Residual(nn.Module):
    """Convolutions beside a shortcut; ReLU of the sum.

    The shortcut of a first block has a 1x1 convolution; where it halves the map, "vd" averages before it.
    """

    def __init__(self, inputs: int, width: int, stride: int, *, narrow: bool, first: bool, variant: Variant) -> None:
        super().__init__()
        inner, outputs = _INNER_ACT[variant], width * _EXPAND if narrow else width
        self.body = (
            nn.Sequential(
                Conv(inputs, width, act=inner),
                Conv(width, width, 3, stride, act=inner),
                Conv(width, outputs, act="none"),
            )
            if narrow
            else nn.Sequential(Conv(inputs, width, 3, stride, act=inner), Conv(width, outputs, 3, act="none"))
        )
        self.shortcut: nn.Module = nn.Identity()
        if first and variant == "vd" and stride > 1:
            self.shortcut = nn.Sequential(
                nn.AvgPool2d(stride, stride, ceil_mode=True), Conv(inputs, outputs, act="none")
            )
        elif first:
            self.shortcut = Conv(inputs, outputs, 1, stride, act="none")

    def forward(self, x: Float[Tensor, "B i H W"]) -> Float[Tensor, "B o h w"]:
        """The activated sum."""
        return (self.body(x) + self.shortcut(x)).relu()  # type: ignore[no-any-return]


class ResNet(nn.Module):
    """A stem and four stages of residual blocks; returns the stages' maps, strides 4, 8, 16 and 32."""

    def __init__(self, config: "ResNetConfig") -> None:
        super().__init__()
        narrow = config.depth >= 50
        self.layers = nn.ModuleList([Stem(config.variant, frozen=config.frozen_stem)])
        before = 64
        self.channels: tuple[int, ...] = ()
        for stage, (width, blocks) in enumerate(zip(_WIDTHS, _BLOCKS[config.depth], strict=True)):
            parts = nn.Sequential()
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                parts.append(Residual(before, width, stride, narrow=narrow, first=block == 0, variant=config.variant))
                before = width * _EXPAND if narrow else width
            self.layers.append(parts)
            self.channels += (before,)
        self.strides = (4, 8, 16, 32)
        set_norms(self, config.norm, frozen=config.frozen_norm)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, "B _ _ _"], ...]:
        """Every stage's map, fine to coarse."""
        stem, *stages = self.layers
        x = stem(images)
        maps = []
        for stage in stages:
            x = stage(x)
            maps.append(x)
        return tuple(maps)


@component
class ResNetConfig:
    """Which network, and what of it never learns.

    Published RT-DETR trainings freeze the stem and the norms of 50 and 101 layers: that is for weights that were
    trained before, a fresh network needs both.
    """

    kind: Literal["resnet"] = "resnet"
    depth: Depth = 18
    variant: Variant = "vd"
    norm: NormName = "torch"
    frozen_norm: bool = False  # statistics, factors and shifts of every norm stay as they are
    frozen_stem: bool = False

    def build(self) -> ResNet:
        """The module with fresh weights."""
        return ResNet(self)
