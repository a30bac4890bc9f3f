# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""MobileNetV3-small: inverted residuals with squeeze-and-excitation.

Source: MobileNetV3, Howard et al. 2019, arXiv:1905.02244, table 2; layouts of spec/architectures 2.1 and 3.6.
"""

import math
from typing import Literal, NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from boxwright.config import component
from boxwright.errors import ConfigError
from boxwright.models.backbones.chain import Chain
from boxwright.models.backbones.stems import EntryName, make_entry
from boxwright.models.blocks import Conv

# "rounded": squeeze widths in steps of 8, excitation after the activation, as in the paper's network. "truncated": a
# quarter of the width, excitation before the activation, as in the published light YOLOv5.
SqueezeName = Literal["rounded", "truncated"]
Act = Literal["relu", "hardswish"]


class BlockRow(NamedTuple):
    """One inverted residual of the layer table."""

    outputs: int
    hidden: int  # never scaled
    kernel: int
    stride: int
    squeeze: bool
    act: Act


ROWS = (
    BlockRow(16, 16, 3, 2, True, "relu"),
    BlockRow(24, 72, 3, 2, False, "relu"),
    BlockRow(24, 88, 3, 1, False, "relu"),
    BlockRow(40, 96, 5, 2, True, "hardswish"),
    BlockRow(40, 240, 5, 1, True, "hardswish"),
    BlockRow(40, 240, 5, 1, True, "hardswish"),
    BlockRow(48, 120, 5, 1, True, "hardswish"),
    BlockRow(48, 144, 5, 1, True, "hardswish"),
    BlockRow(96, 288, 5, 2, True, "hardswish"),
    BlockRow(96, 576, 5, 1, True, "hardswish"),
    BlockRow(96, 576, 5, 1, True, "hardswish"),
)
ENTRY_WIDTHS: dict[EntryName, int] = {"paper": 16, "pelee": 32, "focus": 64}
ENDS = (3, 8, 11)  # layers, the stem being layer 0


class SqueezeExcite(nn.Module):
    """Weighs every channel by what two linear layers make of all channel means.

    Source: squeeze-and-excitation, Hu et al. 2017, arXiv:1709.01507.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels), nn.Hardsigmoid())

    def forward(self, x: Float[Tensor, "B c H W"]) -> Float[Tensor, "B c H W"]:
        """The weighed map."""
        return x * self.fc(x.mean((2, 3)))[..., None, None]  # type: ignore[no-any-return]


class InvertedResidual(nn.Module):
    """Widen, filter each channel, narrow; the input is added where the shape stays."""

    def __init__(self, inputs: int, outputs: int, row: BlockRow, squeeze: SqueezeName) -> None:
        super().__init__()
        hidden = row.hidden
        widen = [Conv(inputs, hidden, act=row.act)] if inputs != hidden else []
        excite = [SqueezeExcite(hidden, squeeze_width(hidden, squeeze))] if row.squeeze else []
        # Where nothing is widened, the published layout too excites after the activation.
        late = squeeze == "truncated" and bool(widen) and row.squeeze
        depthwise = Conv(hidden, hidden, row.kernel, row.stride, hidden, act="none" if late else row.act)
        act = [nn.Hardswish() if row.act == "hardswish" else nn.ReLU()] if late else []
        self.conv = nn.Sequential(*widen, depthwise, *excite, *act, Conv(hidden, outputs, act="none"))
        self.add = row.stride == 1 and inputs == outputs

    def forward(self, x: Float[Tensor, "B i H W"]) -> Float[Tensor, "B o h w"]:
        """The narrow map, plus the input where the shape stays."""
        y: Tensor = self.conv(x)
        return x + y if self.add else y


def squeeze_width(hidden: int, squeeze: SqueezeName) -> int:
    """Channels between the two linear layers.

    >>> [squeeze_width(hidden, "rounded") for hidden in (16, 96, 240, 120, 144)]
    [8, 24, 64, 32, 40]
    >>> squeeze_width(120, "truncated")
    30
    """
    if squeeze == "truncated":
        return hidden // 4
    wanted = hidden / 4
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * wanted else rounded


@component
class MobileNetV3Config:
    """MobileNetV3-small up to its last inverted residual, with maps at strides 8, 16 and 32.

    An entry of stride 4 makes that 16, 32 and 64, as in one of the published light YOLOv5.
    """

    kind: Literal["mobilenet_v3"] = "mobilenet_v3"
    entry: EntryName = "paper"  # a convolution of stride 2
    width: float = 1.0  # factor on the outputs of every layer, rounded up to multiples of 8; not on the hidden widths
    squeeze: SqueezeName = "rounded"

    def __post_init__(self) -> None:
        if not self.width > 0:
            raise ConfigError(f"backbone.width: expected a positive factor, got {self.width}")

    def build(self) -> Chain:
        """The module with fresh weights."""
        before = self._scaled(ENTRY_WIDTHS[self.entry])
        own = Conv(3, before, 3, 2, act="hardswish") if self.entry == "paper" else make_entry(self.entry, before)
        layers: list[nn.Module] = [own]
        for row in ROWS:
            outputs = self._scaled(row.outputs)
            layers.append(InvertedResidual(before, outputs, row, self.squeeze))
            before = outputs
        return Chain(layers, ENDS)

    def _scaled(self, width: int) -> int:
        return 8 * math.ceil(width * self.width / 8)
