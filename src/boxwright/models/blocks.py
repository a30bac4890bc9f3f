# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The parts that backbones, necks and heads are made of, and Conv+BN folding.

Written for channels-last maps: elementwise kernels are three times slower on a slice of the channels (rows too short to
be vectorised), so slices that others work on are made dense, forward in `C2f` and backward in `join`.

Source: spec/architectures sections 1, 2 and 6.10.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import fusion

BN_EPS = 1e-3
BN_MOMENTUM = 0.03

BlockName = Literal["c2f", "c2"]


class Conv(nn.Module):
    """Convolution without bias, batch norm, SiLU; the spatial size is divided by the stride (rounded up)."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(outputs, eps=BN_EPS, momentum=BN_MOMENTUM)
        self.act = nn.SiLU()

    def forward(self, x: Float[Tensor, "B i H W"]) -> Float[Tensor, "B o h w"]:
        """Activation of the normalised convolution."""
        return self.act(self.bn(self.conv(x)))  # type: ignore[no-any-return]

    @torch.no_grad()
    def fold_(self) -> None:
        """Writes the batch norm into the convolution, in place; nothing happens the second time."""
        if isinstance(self.bn, nn.BatchNorm2d):
            self.conv = fusion.fuse_conv_bn_eval(self.conv.eval(), self.bn.eval())
            self.bn = nn.Identity()
            self.act = nn.SiLU(inplace=True)  # a folded network is for inference: nobody needs the input again


class Bottleneck(nn.Module):
    """Two convolutions; the input is added when `shortcut` is set and the widths agree."""

    def __init__(
        self, inputs: int, outputs: int, *, shortcut: bool, kernels: tuple[int, int] = (3, 3), expand: float = 0.5
    ) -> None:
        super().__init__()
        hidden = int(outputs * expand)
        self.conv1 = Conv(inputs, hidden, kernels[0])
        self.conv2 = Conv(hidden, outputs, kernels[1])
        self.add = shortcut and inputs == outputs

    def forward(self, x: Float[Tensor, "B i H W"]) -> Float[Tensor, "B o H W"]:
        """The second convolution's map, plus the input where the block has a shortcut."""
        y: Tensor = self.conv2(self.conv1(x))
        return x + y if self.add else y


class C2f(nn.Module):
    """A split convolution; its second half runs through bottlenecks and every map on the way reaches the exit."""

    def __init__(self, inputs: int, outputs: int, depth: int, *, shortcut: bool) -> None:
        super().__init__()
        self.hidden = int(outputs * 0.5)
        self.entry = Conv(inputs, 2 * self.hidden)
        self.exit = Conv((2 + depth) * self.hidden, outputs)
        self.units = nn.ModuleList(
            Bottleneck(self.hidden, self.hidden, shortcut=shortcut, expand=1.0) for _ in range(depth)
        )

    def forward(self, x: Float[Tensor, "B i H W"]) -> Float[Tensor, "B o H W"]:
        """The joined maps after the exit convolution."""
        first, second = self.entry(x).chunk(2, 1)
        parts = [first, _dense(second)]
        for unit in self.units:
            parts.append(unit(parts[-1]))
        return self.exit(join(parts))  # type: ignore[no-any-return]


class C2(nn.Module):
    """A split convolution; its first half runs through bottlenecks, both halves reach the exit.

    Source: cross-stage partial networks, Wang et al. 2020, arXiv:1911.11929; the neck of the published P6 variants.
    """

    def __init__(self, inputs: int, outputs: int, depth: int, *, shortcut: bool) -> None:
        super().__init__()
        hidden = int(outputs * 0.5)
        self.entry = Conv(inputs, 2 * hidden)
        self.exit = Conv(2 * hidden, outputs)
        self.units = nn.Sequential(*(Bottleneck(hidden, hidden, shortcut=shortcut, expand=1.0) for _ in range(depth)))

    def forward(self, x: Float[Tensor, "B i H W"]) -> Float[Tensor, "B o H W"]:
        """The joined halves after the exit convolution."""
        first, second = self.entry(x).chunk(2, 1)
        return self.exit(join([self.units(_dense(first)), second]))  # type: ignore[no-any-return]


class SPPF(nn.Module):
    """Three chained 5x5 max-pools of a narrow map, all four maps joined."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 5) -> None:
        super().__init__()
        hidden = inputs // 2
        self.entry = Conv(inputs, hidden)
        self.exit = Conv(4 * hidden, outputs)
        self.pool = nn.MaxPool2d(kernel, stride=1, padding=kernel // 2)

    def forward(self, x: Float[Tensor, "B i H W"]) -> Float[Tensor, "B o H W"]:
        """The joined maps after the exit convolution."""
        maps = [self.entry(x)]
        for _ in range(3):
            maps.append(self.pool(maps[-1]))
        return self.exit(join(maps))  # type: ignore[no-any-return]


class Concat(nn.Module):
    """Joins maps along the channels; a module so that layer tables can count it."""

    def forward(self, *maps: Float[Tensor, "B _ H W"]) -> Float[Tensor, "B o H W"]:
        """The maps, one after the other."""
        return join(maps)


class Upsample(nn.Module):
    """Every cell becomes 2x2 equal cells."""

    def forward(self, x: Float[Tensor, "B c H W"]) -> Float[Tensor, "B c h w"]:
        """The map at twice the size."""
        return _Doubled.apply(x) if torch.is_grad_enabled() else _double(x)  # type: ignore[no-untyped-call]


def join(maps: Sequence[Float[Tensor, "B _ H W"]]) -> Float[Tensor, "B o H W"]:
    """The maps one after the other along the channels; channels-last gradients come back dense."""
    return _Joined.apply(*maps) if torch.is_grad_enabled() else torch.cat(list(maps), 1)  # type: ignore[no-untyped-call]


def make_block(name: BlockName, inputs: int, outputs: int, depth: int, *, shortcut: bool) -> nn.Module:
    """A stage block by name."""
    return {"c2f": C2f, "c2": C2}[name](inputs, outputs, depth, shortcut=shortcut)


def fold_(module: nn.Module) -> None:
    """Folds every `Conv` inside `module`, in place."""
    for part in module.modules():
        if isinstance(part, Conv):
            part.fold_()


class _Joined(torch.autograd.Function):
    """`torch.cat`, whose own backward would hand out slices."""

    @staticmethod
    def forward(ctx: Any, *maps: Tensor) -> Tensor:
        ctx.widths = [x.shape[1] for x in maps]
        return torch.cat(maps, 1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        return tuple(_dense(part) for part in torch.split(grad, ctx.widths, 1))


class _Doubled(torch.autograd.Function):
    """Nearest upsampling whose backward is one sum pooling, half the time of the framework's."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _double(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(grad, 2, divisor_override=1)


def _double(x: Tensor) -> Tensor:
    return nn.functional.interpolate(x, scale_factor=2.0, mode="nearest")


def _dense(x: Tensor) -> Tensor:
    """A slice of the channels of a channels-last map as a map of its own; anything else unchanged."""
    return x.contiguous(memory_format=torch.channels_last) if x.stride(1) == 1 else x
