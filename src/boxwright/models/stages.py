# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Stage blocks by name: each takes (inputs, outputs, depth) and repeats its unit `depth` times.

All are cross-stage partial: part of the map bypasses the units. Which block stands where is data of a backbone or neck.
Add one: a class or a function here, its name in `BlockName` and its line in `_BLOCKS`.

Source: CSPNet, Wang et al. 2020, arXiv:1911.11929; spec/architectures 2.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal, TypeVar

from jaxtyping import Float
from torch import Tensor, nn

from boxwright.errors import ConfigError
from boxwright.models.attention import PSABlock
from boxwright.models.blocks import Conv, RepVGGDW, SCDown, dense, join

# "c3k2_c3k": a whole C3k in each unit; "c3k2_attention": attention after each unit; "c2fcib_large": 7x7 kernels.
BlockName = Literal["c2f", "c2", "c3", "c3k2", "c3k2_c3k", "c3k2_attention", "c2fcib", "c2fcib_large"]
DownName = Literal["conv", "scdown"]  # how a map is halved
C3k2Unit = Literal["bottleneck", "c3k", "attention"]
T = TypeVar("T")


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
    """A split convolution; its second half runs through units and every map on the way reaches the exit.

    `unit` builds one from the width of the half; without it they are bottlenecks.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        depth: int,
        *,
        shortcut: bool,
        expand: float = 0.5,
        unit: Callable[[int], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.hidden = int(outputs * expand)
        build = unit or (lambda width: Bottleneck(width, width, shortcut=shortcut, expand=1.0))
        self.entry = Conv(inputs, 2 * self.hidden)
        self.exit = Conv((2 + depth) * self.hidden, outputs)
        self.units = nn.ModuleList(build(self.hidden) for _ in range(depth))

    def forward(self, x: Float[Tensor, "B i H W"]) -> Float[Tensor, "B o H W"]:
        """The joined maps after the exit convolution."""
        first, second = self.entry(x).chunk(2, 1)
        parts = [first, dense(second)]
        for unit in self.units:
            parts.append(unit(parts[-1]))
        return self.exit(join(parts))  # type: ignore[no-any-return]


class C2(nn.Module):
    """A split convolution; its first half runs through bottlenecks, both halves reach the exit (the P6 necks)."""

    def __init__(self, inputs: int, outputs: int, depth: int, *, shortcut: bool, expand: float = 0.5) -> None:
        super().__init__()
        hidden = int(outputs * expand)
        self.entry = Conv(inputs, 2 * hidden)
        self.exit = Conv(2 * hidden, outputs)
        self.units = nn.Sequential(*(Bottleneck(hidden, hidden, shortcut=shortcut, expand=1.0) for _ in range(depth)))

    def forward(self, x: Float[Tensor, "B i H W"]) -> Float[Tensor, "B o H W"]:
        """The joined halves after the exit convolution."""
        first, second = self.entry(x).chunk(2, 1)
        return self.exit(join([self.units(dense(first)), second]))  # type: ignore[no-any-return]


class C3(nn.Module):
    """Two 1x1 convolutions; bottlenecks follow the first, the second bypasses them, both reach the exit."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        depth: int,
        *,
        shortcut: bool,
        expand: float = 0.5,
        kernels: tuple[int, int] = (1, 3),
    ) -> None:
        super().__init__()
        hidden = int(outputs * expand)
        self.entry = Conv(inputs, hidden)
        self.bypass = Conv(inputs, hidden)
        self.exit = Conv(2 * hidden, outputs)
        self.units = nn.Sequential(
            *(Bottleneck(hidden, hidden, shortcut=shortcut, kernels=kernels, expand=1.0) for _ in range(depth))
        )

    def forward(self, x: Float[Tensor, "B i H W"]) -> Float[Tensor, "B o H W"]:
        """The joined maps after the exit convolution."""
        return self.exit(join([self.units(self.entry(x)), self.bypass(x)]))  # type: ignore[no-any-return]


class C3k(C3):
    """`C3` whose bottlenecks have two 3x3 kernels."""

    def __init__(self, inputs: int, outputs: int, depth: int = 2, *, shortcut: bool = True) -> None:
        super().__init__(inputs, outputs, depth, shortcut=shortcut, kernels=(3, 3))


class C3k2(C2f):
    """The frame of `C2f` around narrow bottlenecks, whole `C3k` blocks, or bottlenecks followed by attention."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        depth: int,
        *,
        shortcut: bool = True,
        expand: float = 0.5,
        inner: C3k2Unit = "bottleneck",
    ) -> None:
        build = partial(_c3k2_unit, inner, shortcut)
        super().__init__(inputs, outputs, depth, shortcut=shortcut, expand=expand, unit=build)


class CIB(nn.Module):
    """A bottleneck of depthwise and 1x1 convolutions in turn; `large` has a 7x7 kernel in the middle.

    Source: YOLOv10, Wang et al. 2024, arXiv:2405.14458, sections 3.2 and 3.3.
    """

    def __init__(self, channels: int, *, shortcut: bool = True, large: bool = False) -> None:
        super().__init__()
        wide = 2 * channels
        self.convs = nn.Sequential(
            Conv(channels, channels, 3, groups=channels),
            Conv(channels, wide),
            RepVGGDW(wide) if large else Conv(wide, wide, 3, groups=wide),
            Conv(wide, channels),
            Conv(channels, channels, 3, groups=channels),
        )
        self.add = shortcut

    def forward(self, x: Float[Tensor, "B c H W"]) -> Float[Tensor, "B c H W"]:
        """The last convolution's map, plus the input where the block has a shortcut."""
        y: Tensor = self.convs(x)
        return x + y if self.add else y


class C2fCIB(C2f):
    """The frame of `C2f` around `CIB` units."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        depth: int,
        *,
        shortcut: bool = True,
        expand: float = 0.5,
        large: bool = False,
    ) -> None:
        build = partial(CIB, shortcut=shortcut, large=large)
        super().__init__(inputs, outputs, depth, shortcut=shortcut, expand=expand, unit=build)


_BLOCKS: dict[BlockName, Callable[..., nn.Module]] = {
    "c2f": C2f,
    "c2": C2,
    "c3": C3,
    "c3k2": C3k2,
    "c3k2_c3k": partial(C3k2, inner="c3k"),
    "c3k2_attention": partial(C3k2, inner="attention"),
    "c2fcib": C2fCIB,
    "c2fcib_large": partial(C2fCIB, large=True),
}


def make_block(
    name: BlockName, inputs: int, outputs: int, depth: int, *, shortcut: bool, expand: float = 0.5
) -> nn.Module:
    """A stage block by name. C3k2 and C2fCIB keep their shortcuts wherever they stand, as published."""
    always = name.startswith(("c3k2", "c2fcib"))
    return _BLOCKS[name](inputs, outputs, depth, shortcut=shortcut or always, expand=expand)


def make_down(name: DownName, inputs: int, outputs: int) -> nn.Module:
    """What halves a map, by name."""
    return Conv(inputs, outputs, 3, 2) if name == "conv" else SCDown(inputs, outputs)


def each(value: T | tuple[T, ...], index: int) -> T:
    """The value of one of several places: its own of a list, or the one that all share."""
    return value[index] if isinstance(value, tuple) else value


def check_each(name: str, value: object, count: int, place: str) -> None:
    """Refuses a list that has not one entry for each place.

    Raises:
        ConfigError: it has another length.
    """
    if isinstance(value, tuple) and len(value) != count:
        raise ConfigError(f"{name}: expected one value, or {count} (one per {place}), got {len(value)}")


def _c3k2_unit(inner: C3k2Unit, shortcut: bool, width: int) -> nn.Module:
    if inner == "c3k":
        return C3k(width, width, shortcut=shortcut)
    narrow = Bottleneck(width, width, shortcut=shortcut)
    return nn.Sequential(narrow, PSABlock(width)) if inner == "attention" else narrow
