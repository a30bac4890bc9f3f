# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""One cross-stage-partial backbone: a stem, stages that halve the size, pooled context, attention; all of it is data.

Source: CSPNet, Wang et al. 2020, arXiv:1911.11929; layer tables of spec/architectures 3.2, 4.2 and 5.
"""

from collections.abc import Callable
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from boxwright.config import component
from boxwright.errors import ConfigError
from boxwright.models.attention import C2PSA, PSA
from boxwright.models.backbones.chain import maps_after
from boxwright.models.blocks import SPP, SPPF, Conv, Focus
from boxwright.models.stages import BlockName, DownName, check_each, each, make_block, make_down

StemName = Literal["conv3", "conv6", "focus"]  # a 3x3 or 6x6 convolution of stride 2, or 2x2 neighbours as channels
ContextName = Literal["sppf", "sppf_residual", "spp", "none"]
AttentionName = Literal["none", "psa", "c2psa"]

_STEMS: dict[StemName, Callable[[int], nn.Module]] = {
    "conv3": lambda width: Conv(3, width, 3, 2),
    "conv6": lambda width: Conv(3, width, 6, 2, padding=2),
    "focus": lambda width: Focus(3, width, 3),
}
_CONTEXTS: dict[ContextName, Callable[[int], nn.Module]] = {
    "sppf": lambda width: SPPF(width, width),
    "sppf_residual": lambda width: SPPF(width, width, residual=True),
    "spp": lambda width: SPP(width, width),
}


class CSP(nn.Module):
    """Stem at stride 2, then a halving convolution and a block per stage, pooled context and attention at the end."""

    def __init__(self, config: "CSPConfig") -> None:
        super().__init__()
        stem, *widths = config.widths
        stages = len(widths)
        self.layers = nn.ModuleList([_STEMS[config.stem](stem)])
        ends = []
        before = stem
        for stage, (width, depth) in enumerate(zip(widths, config.depths, strict=True)):
            last = stage == stages - 1
            halved = config.down_widths[stage] if config.down_widths else width
            self.layers.append(make_down(each(config.down, stage), before, halved))
            if last and config.context_first:
                self.layers.append(_CONTEXTS[config.context](halved))
            self.layers.append(
                make_block(
                    each(config.block, stage),
                    halved,
                    width,
                    depth,
                    shortcut=not (last and config.context_first),
                    expand=each(config.expand, stage),
                )
            )
            ends.append(len(self.layers) - 1)
            before = width
        if config.context != "none" and not config.context_first:
            self.layers.append(_CONTEXTS[config.context](before))
        if config.attention != "none":
            psa = C2PSA(before, before, config.attention_depth) if config.attention == "c2psa" else PSA(before, before)
            self.layers.append(psa)
        ends[-1] = len(self.layers) - 1
        self._ends = frozenset(ends)
        self.channels = tuple(widths)
        self.strides = tuple(4 * 2**i for i in range(stages))

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, "B _ _ _"], ...]:
        """Every stage's map, fine to coarse; the last one after context and attention."""
        return maps_after(self.layers, self._ends, images)


@component
class CSPConfig:
    """Widths of the stem and of each stage (strides 4, 8, 16, ...), how often each block repeats its unit, and which.

    What is one value or a list is for all stages, or for each.
    """

    kind: Literal["csp"] = "csp"
    block: BlockName | tuple[BlockName, ...] = "c2f"
    widths: tuple[int, ...] = (16, 32, 64, 128, 256)
    depths: tuple[int, ...] = (1, 2, 2, 1)
    stem: StemName = "conv3"
    down: DownName | tuple[DownName, ...] = "conv"
    down_widths: tuple[int, ...] = ()  # of each stage's halving convolution; empty: that of its block
    expand: float | tuple[float, ...] = 0.5  # width of the units inside a block, as a share of the block's
    context: ContextName = "sppf"
    context_first: bool = False  # before the last block, which then has no shortcut: YOLOv5 of spring 2021
    attention: AttentionName = "none"  # after the context
    attention_depth: int = 1  # blocks of "c2psa"

    def __post_init__(self) -> None:
        stages = len(self.depths)
        if len(self.widths) != stages + 1 or not self.depths:
            raise ConfigError(
                f"backbone.widths: expected one width for the stem and one per depth, "
                f"got {len(self.widths)} widths for {stages} depths"
            )
        if min(self.widths) < 1 or min(self.depths) < 0:
            raise ConfigError(
                f"backbone: widths must be positive and depths not negative, got {self.widths}, {self.depths}"
            )
        if self.down_widths and (len(self.down_widths) != stages or min(self.down_widths) < 1):
            raise ConfigError(
                f"backbone.down_widths: expected {stages} positive widths, one per depth, got {self.down_widths}"
            )
        for name in ("block", "down", "expand"):
            check_each(f"backbone.{name}", getattr(self, name), stages, "stage")
        if self.context_first and self.context == "none":
            raise ConfigError("backbone.context_first: expected a context to put first, got context 'none'")

    def build(self) -> CSP:
        """The module with fresh weights."""
        return CSP(self)
