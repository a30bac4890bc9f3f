# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The HGNetv2-like backbone of RT-DETR-l and -x: blocks that join the maps of all their convolutions.

Source: RT-DETR, Zhao et al. 2023, arXiv:2304.08069; spec/architectures 2.2 and 6.7.
"""

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from boxwright.config import component
from boxwright.errors import ConfigError
from boxwright.models.backbones.chain import maps_after
from boxwright.models.blocks import Conv, join
from boxwright.models.norms import NormName, set_norms

_STAGES = 4


class HGStem(nn.Module):
    """Two ways to halve a map, joined, between two convolutions that halve it too: stride 4."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = Conv(inputs, hidden, 3, 2, act="relu")
        self.conv2a = Conv(hidden, hidden // 2, 2, padding=0, act="relu")
        self.conv2b = Conv(hidden // 2, hidden, 2, padding=0, act="relu")
        self.conv3 = Conv(2 * hidden, hidden, 3, 2, act="relu")
        self.conv4 = Conv(hidden, outputs, act="relu")
        self.pool = nn.MaxPool2d(2, 1)

    def forward(self, x: Float[Tensor, "B i H W"]) -> Float[Tensor, "B o h w"]:
        """The map at a quarter of the size."""
        x = _padded(self.conv1(x))
        convolved = self.conv2b(_padded(self.conv2a(x)))
        return self.conv4(self.conv3(join([self.pool(x), convolved])))  # type: ignore[no-any-return]


class LightConv(nn.Module):
    """A 1x1 convolution without activation, then a depthwise one."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.point = Conv(inputs, outputs, act="none")
        self.depthwise = Conv(outputs, outputs, kernel, groups=outputs, act="relu")

    def forward(self, x: Float[Tensor, "B i H W"]) -> Float[Tensor, "B o H W"]:
        """The map after both."""
        return self.depthwise(self.point(x))  # type: ignore[no-any-return]


class HGBlock(nn.Module):
    """A chain of convolutions whose maps are all joined, then squeezed and excited by 1x1 convolutions."""

    def __init__(
        self, inputs: int, hidden: int, outputs: int, kernel: int, depth: int, *, light: bool, residual: bool
    ) -> None:
        super().__init__()
        before = [inputs] + [hidden] * (depth - 1)
        self.units = nn.ModuleList(
            LightConv(width, hidden, kernel) if light else Conv(width, hidden, kernel, act="relu") for width in before
        )
        self.squeeze = Conv(inputs + depth * hidden, outputs // 2, act="relu")
        self.excite = Conv(outputs // 2, outputs, act="relu")
        self.add = residual and inputs == outputs

    def forward(self, x: Float[Tensor, "B i H W"]) -> Float[Tensor, "B o H W"]:
        """The joined maps after both 1x1 convolutions, plus the input of a residual block."""
        maps = [x]
        for unit in self.units:
            maps.append(unit(maps[-1]))
        y: Tensor = self.excite(self.squeeze(join(maps)))
        return x + y if self.add else y


class HGNet(nn.Module):
    """A stem and four stages, each but the first halved by a depthwise convolution; returns strides 4, 8, 16, 32."""

    def __init__(self, config: "HGNetConfig") -> None:
        super().__init__()
        hidden, before = config.stem
        self.layers = nn.ModuleList([HGStem(3, hidden, before)])
        ends = []
        for stage, (narrow, width, blocks) in enumerate(zip(config.hidden, config.widths, config.blocks, strict=True)):
            if stage > 0:
                self.layers.append(Conv(before, before, 3, 2, before, act="none"))
            light = stage >= config.light_from
            for block in range(blocks):
                kernel = config.light_kernel if light else 3
                self.layers.append(
                    HGBlock(before, narrow, width, kernel, config.depth, light=light, residual=block > 0)
                )
                before = width
            ends.append(len(self.layers) - 1)
        self._ends = frozenset(ends)
        self.channels = tuple(config.widths)
        self.strides = tuple(4 * 2**stage for stage in range(_STAGES))
        set_norms(self, config.norm)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, "B _ _ _"], ...]:
        """Every stage's map, fine to coarse."""
        return maps_after(self.layers, self._ends, images)


@component
class HGNetConfig:
    """Widths of the stem, and inner width, width and number of blocks of the four stages; defaults are those of -l."""

    kind: Literal["hgnet"] = "hgnet"
    stem: tuple[int, int] = (32, 48)
    hidden: tuple[int, ...] = (48, 96, 192, 384)
    widths: tuple[int, ...] = (128, 512, 1024, 2048)
    blocks: tuple[int, ...] = (1, 1, 3, 1)
    depth: int = 6  # convolutions of a block
    light_from: int = 2  # first stage (from 0) of light convolutions
    light_kernel: int = 5
    norm: NormName = "yolo"

    def __post_init__(self) -> None:
        for name in ("hidden", "widths", "blocks"):
            value = getattr(self, name)
            if len(value) != _STAGES or min(value) < 1:
                raise ConfigError(f"backbone.{name}: expected {_STAGES} positive numbers, one per stage, got {value}")

    def build(self) -> HGNet:
        """The module with fresh weights."""
        return HGNet(self)


def _padded(x: Tensor) -> Tensor:
    """One column and one row of zeros at the right and at the bottom."""
    return nn.functional.pad(x, (0, 1, 0, 1))
