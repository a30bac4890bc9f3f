# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The parts that backbones, necks and heads are made of, and Conv+BN folding. Stage blocks are in `stages.py`.

Written for channels-last maps: elementwise kernels are three times slower on a slice of the channels (rows too short to
be vectorised), so slices that others work on are made dense, forward by `dense` and backward in `join`.

Source: spec/architectures 1, 2 and 6.10.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import fusion

BN_EPS = 1e-3
BN_MOMENTUM = 0.03

ActName = Literal["silu", "relu", "hardswish", "none"]
# In place: for folded networks, where nobody needs the input again.
_ACTS: dict[ActName, Callable[[bool], nn.Module]] = {
    "silu": nn.SiLU,
    "relu": nn.ReLU,
    "hardswish": nn.Hardswish,
    "none": lambda _in_place: nn.Identity(),
}


class Foldable(nn.Module, ABC):
    """A module that can write its batch norms into its convolutions."""

    @abstractmethod
    def fold_(self) -> None:
        """Folds in place; nothing happens the second time."""
        ...


class Conv(Foldable):
    """Convolution without bias, batch norm, activation; the spatial size is divided by the stride (rounded up).

    `padding` is half the kernel where it is not given.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        *,
        act: ActName = "silu",
        padding: int | None = None,
    ) -> None:
        super().__init__()
        padding = kernel // 2 if padding is None else padding
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(outputs, eps=BN_EPS, momentum=BN_MOMENTUM)
        self.act_name = act
        self.act = _ACTS[act](False)

    def forward(self, x: Float[Tensor, "B i H W"]) -> Float[Tensor, "B o h w"]:
        """Activation of the normalised convolution."""
        return self.act(self.bn(self.conv(x)))  # type: ignore[no-any-return]

    @torch.no_grad()
    def fold_(self) -> None:
        """Writes the batch norm into the convolution, in place; nothing happens the second time."""
        if isinstance(self.bn, nn.BatchNorm2d):
            self.conv = fusion.fuse_conv_bn_eval(self.conv.eval(), self.bn.eval())
            self.bn = nn.Identity()
            self.act = _ACTS[self.act_name](True)


class SCDown(nn.Module):
    """Halves a map in two steps: a 1x1 convolution chooses the channels, a depthwise one without activation the places.

    Source: YOLOv10, Wang et al. 2024, arXiv:2405.14458, section 3.2.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 2) -> None:
        super().__init__()
        self.point = Conv(inputs, outputs)
        self.depthwise = Conv(outputs, outputs, kernel, stride, outputs, act="none")

    def forward(self, x: Float[Tensor, "B i H W"]) -> Float[Tensor, "B o h w"]:
        """The smaller map."""
        return self.depthwise(self.point(x))  # type: ignore[no-any-return]


class Focus(nn.Module):
    """A convolution of 2x2 neighbours laid out as channels: the stem of the spring-2021 YOLOv5.

    Source: spec/architectures 2; the order is (even row, even column), (odd, even), (even, odd), (odd, odd).
    """

    def __init__(self, inputs: int, outputs: int, kernel: int = 3) -> None:
        super().__init__()
        self.conv = Conv(4 * inputs, outputs, kernel)

    def forward(self, x: Float[Tensor, "B i H W"]) -> Float[Tensor, "B o h w"]:
        """The map at half the size."""
        parts = (x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2])
        return self.conv(torch.cat(parts, 1))  # type: ignore[no-any-return]


class FoldedPair(Foldable):
    """The sum of a large and a small convolution of one map, one large convolution after folding.

    Source: RepVGG, Ding et al. 2021, arXiv:2101.03697.
    """

    def __init__(self, channels: int, large: int, small: int, groups: int = 1) -> None:
        """`large` and `small` are odd kernels."""
        super().__init__()
        self.large = Conv(channels, channels, large, groups=groups, act="none")
        self.small: Conv | None = Conv(channels, channels, small, groups=groups, act="none")
        self.act = nn.SiLU()

    def forward(self, x: Float[Tensor, "B c H W"]) -> Float[Tensor, "B c H W"]:
        """Activation of the sum."""
        wide = self.large(x)
        return self.act(wide if self.small is None else wide + self.small(x))  # type: ignore[no-any-return]

    @torch.no_grad()
    def fold_(self) -> None:
        """Adds the small kernel to the middle of the large one, in place; nothing happens the second time."""
        if self.small is None:
            return
        self.large.fold_()
        self.small.fold_()
        large, small = self.large.conv, self.small.conv
        assert large.bias is not None
        assert small.bias is not None
        around = (large.weight.shape[-1] - small.weight.shape[-1]) // 2
        large.weight += nn.functional.pad(small.weight, (around,) * 4)
        large.bias += small.bias
        self.small = None
        self.act = nn.SiLU(inplace=True)


class RepVGGDW(FoldedPair):
    """The sum of a 7x7 and a 3x3 depthwise convolution.

    Source: YOLOv10, arXiv:2405.14458, section 3.3.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, 7, 3, groups=channels)


class SPPF(nn.Module):
    """Three chained max-pools of a narrow map, all four maps joined.

    `residual` is the form of 2026: no activation before the pools, and the input is added where the widths agree.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int = 5, *, residual: bool = False) -> None:
        super().__init__()
        hidden = inputs // 2
        self.entry = Conv(inputs, hidden, act="none" if residual else "silu")
        self.exit = Conv(4 * hidden, outputs)
        self.pool = nn.MaxPool2d(kernel, stride=1, padding=kernel // 2)
        self.add = residual and inputs == outputs

    def forward(self, x: Float[Tensor, "B i H W"]) -> Float[Tensor, "B o H W"]:
        """The joined maps after the exit convolution."""
        maps = [self.entry(x)]
        for _ in range(3):
            maps.append(self.pool(maps[-1]))
        y: Tensor = self.exit(join(maps))
        return x + y if self.add else y


class SPP(nn.Module):
    """Parallel max-pools of a narrow map, joined with it: the context of the spring-2021 YOLOv5.

    Source: spatial pyramid pooling, He et al. 2014, arXiv:1406.4729.
    """

    def __init__(self, inputs: int, outputs: int, kernels: Sequence[int] = (5, 9, 13)) -> None:
        super().__init__()
        hidden = inputs // 2
        self.entry = Conv(inputs, hidden)
        self.exit = Conv((len(kernels) + 1) * hidden, outputs)
        self.pools = nn.ModuleList(nn.MaxPool2d(kernel, stride=1, padding=kernel // 2) for kernel in kernels)

    def forward(self, x: Float[Tensor, "B i H W"]) -> Float[Tensor, "B o H W"]:
        """The joined maps after the exit convolution."""
        narrow = self.entry(x)
        return self.exit(join([narrow, *(pool(narrow) for pool in self.pools)]))  # type: ignore[no-any-return]


class Proto(nn.Module):
    """Mask prototypes at twice the size of the map: what every instance mask is a weighted sum of.

    The size is doubled by a transposed convolution, or (YOLOv5) by repeating every cell.

    Source: YOLACT, Bolya et al. 2019, arXiv:1904.02689, section 3.1.
    """

    def __init__(
        self, inputs: int, hidden: int, count: int = 32, *, upsample: Literal["transposed", "nearest"] = "transposed"
    ) -> None:
        super().__init__()
        self.conv1 = Conv(inputs, hidden, 3)
        self.up = nn.ConvTranspose2d(hidden, hidden, 2, 2) if upsample == "transposed" else Upsample()
        self.conv2 = Conv(hidden, hidden, 3)
        self.conv3 = Conv(hidden, count)

    def forward(self, x: Float[Tensor, "B i H W"]) -> Float[Tensor, "B Q h w"]:
        """The prototypes."""
        return self.conv3(self.conv2(self.up(self.conv1(x))))  # type: ignore[no-any-return]


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


def fold_(module: nn.Module) -> None:
    """Folds everything inside `module` that can be, in place."""
    for part in list(module.modules()):
        if isinstance(part, Foldable):
            part.fold_()


def dense(x: Float[Tensor, "B c H W"]) -> Float[Tensor, "B c H W"]:
    """A slice of the channels of a channels-last map as a map of its own; anything else unchanged."""
    return x.contiguous(memory_format=torch.channels_last) if x.stride(1) == 1 else x


class _Joined(torch.autograd.Function):
    """`torch.cat`, whose own backward would hand out slices."""

    @staticmethod
    def forward(ctx: Any, *maps: Tensor) -> Tensor:
        ctx.widths = [x.shape[1] for x in maps]
        return torch.cat(maps, 1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        return tuple(dense(part) for part in torch.split(grad, ctx.widths, 1))


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
