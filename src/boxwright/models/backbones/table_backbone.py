# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""A network by its table of layers: where each takes its input, which block it is, and the block's numbers.

The table is backbone and neck in one: with it the neck is `necks/none.py`. Widths and repeats here are those of the
finished network; `models/layer_table.py` reads and scales the files that people write.

Source: spec/architectures 1 to 5.
"""

import difflib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from boxwright.config import component
from boxwright.errors import ConfigError
from boxwright.models.attention import C2PSA, PSA
from boxwright.models.blocks import SPP, SPPF, Concat, Conv, Focus, SCDown, Upsample
from boxwright.models.stages import C2, C3, C2f, C2fCIB, C3k2

Argument = bool | int | float | str | None | tuple[int, ...]


class Built(NamedTuple):
    """A layer, the width of its map, and how much coarser the map is than its input."""

    layer: nn.Module
    width: int
    coarser: float = 1


def _conv(inputs: int, repeats: int, o: int, k: int = 1, s: int = 1, p: int | None = None, g: int = 1) -> Built:
    rest = [Conv(o, o, k, s, g, padding=p) for _ in range(repeats - 1)]
    first = Conv(inputs, o, k, s, g, padding=p)
    return Built(nn.Sequential(first, *rest) if rest else first, o, s**repeats)


def _stage(
    build: Callable[..., nn.Module], usual: bool, inputs: int, repeats: int, o: int, short: bool | None = None
) -> Built:
    return Built(build(inputs, o, repeats, shortcut=usual if short is None else short), o)


def _c3k2(
    inputs: int, repeats: int, o: int, c3k: bool = False, e: float = 0.5, attn: bool = False, g: int = 1
) -> Built:
    _expect("C3k2", "groups", g, 1)
    inner = "attention" if attn else "c3k" if c3k else "bottleneck"
    return Built(C3k2(inputs, o, repeats, expand=e, inner=inner), o)  # type: ignore[arg-type]


def _c2fcib(inputs: int, repeats: int, o: int, short: bool = False, lk: bool = False) -> Built:
    return Built(C2fCIB(inputs, o, repeats, shortcut=short, large=lk), o)


def _sppf(inputs: int, repeats: int, o: int, k: int = 5, n: int = 3, short: bool = False) -> Built:
    _expect("SPPF", "pools", n, 3)
    return Built(_once("SPPF", repeats, SPPF(inputs, o, k, residual=short)), o)


def _spp(inputs: int, repeats: int, o: int, k: tuple[int, ...] = (5, 9, 13)) -> Built:
    return Built(_once("SPP", repeats, SPP(inputs, o, k)), o)


def _focus(inputs: int, repeats: int, o: int, k: int = 1) -> Built:
    return Built(_once("Focus", repeats, Focus(inputs, o, k)), o, 2)


def _scdown(inputs: int, repeats: int, o: int, k: int = 3, s: int = 2) -> Built:
    return Built(_once("SCDown", repeats, SCDown(inputs, o, k, s)), o, s)


def _psa(inputs: int, repeats: int, o: int) -> Built:
    return Built(_once("PSA", repeats, PSA(inputs, o)), o)


def _c2psa(inputs: int, repeats: int, o: int) -> Built:
    return Built(C2PSA(inputs, o, repeats), o)


def _upsample(inputs: int, repeats: int, size: None = None, factor: int = 2, mode: str = "nearest") -> Built:
    _expect("nn.Upsample", "size, factor and mode", (size, factor, mode), (None, 2, "nearest"))
    return Built(_once("nn.Upsample", repeats, Upsample()), inputs, 0.5)


def _concat(inputs: int, repeats: int, axis: int = 1) -> Built:
    _expect("Concat", "axis", axis, 1)
    return Built(_once("Concat", repeats, Concat()), inputs)


# Name in a table -> what builds it from the width of its input, its repeats and its arguments. Those of `SCALED` start
# with a width.
LAYERS: dict[str, Callable[..., Built]] = {
    "Conv": _conv,
    "Focus": _focus,
    "SCDown": _scdown,
    "C2": partial(_stage, C2, True),
    "C2f": partial(_stage, C2f, False),
    "C3": partial(_stage, C3, True),
    "C3k2": _c3k2,
    "C2fCIB": _c2fcib,
    "SPP": _spp,
    "SPPF": _sppf,
    "PSA": _psa,
    "C2PSA": _c2psa,
    "nn.Upsample": _upsample,
    "Concat": _concat,
}
SCALED = tuple(name for name in LAYERS if name not in ("nn.Upsample", "Concat"))


class LayerTable(nn.Module):
    """The layers of a table; `channels` and `strides` are those of the maps it returns, in the table's order."""

    def __init__(self, config: "TableConfig") -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        widths, strides = [3], [1.0]  # of the image, then of every row's map
        for index, row in enumerate(config.rows):
            at = [_place(source, index) for source in row.source]
            if len({strides[place] for place in at}) != 1:
                sizes = ", ".join(f"{strides[place]:g}" for place in at)
                raise ConfigError(f"rows.{index} ({row.block}): expected inputs of one size, got strides {sizes}")
            built = _build(row, index, sum(widths[place] for place in at))
            self.layers.append(built.layer)
            widths.append(built.width)
            strides.append(strides[at[0]] * built.coarser)
        self._sources = tuple(tuple(_place(source, i) for source in row.source) for i, row in enumerate(config.rows))
        self._outputs = tuple(output + 1 for output in config.outputs)
        self._kept = frozenset({*self._outputs, *(place for places in self._sources for place in places)})
        self.channels = tuple(widths[place] for place in self._outputs)
        self.strides = tuple(int(strides[place]) for place in self._outputs)
        self.coarsest = int(max(strides))  # px; sides of images are multiples of it

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, "B _ _ _"], ...]:
        """The maps of the rows `outputs`."""
        kept: dict[int, Tensor] = {0: images}
        for place, (layer, sources) in enumerate(zip(self.layers, self._sources, strict=True), start=1):
            x = layer(*(kept[source] for source in sources))
            if place in self._kept:
                kept[place] = x
        return tuple(kept[place] for place in self._outputs)


@component
class TableRow:
    """One layer: rows whose maps it takes (-1 is the row before, 0 the first), repeats, block, and its arguments."""

    source: tuple[int, ...] = (-1,)
    repeats: int = 1
    block: str
    args: tuple[Argument, ...] = ()


@component
class TableConfig:
    """Layers as a table, with the rows whose maps are returned, fine to coarse.

    Source: the table form of spec/architectures 3.2, 4.2 and 5.
    """

    kind: Literal["table"] = "table"
    rows: tuple[TableRow, ...]
    outputs: tuple[int, ...]

    def __post_init__(self) -> None:
        for index, row in enumerate(self.rows):
            check_block(row.block, f"rows.{index}", LAYERS)
            if row.repeats < 1 or not row.source or (len(row.source) > 1 and row.block != "Concat"):
                raise ConfigError(
                    f"rows.{index} ({row.block}): expected at least one repeat and one input (Concat takes several), "
                    f"got {row.repeats} and {list(row.source)}"
                )
            for source in row.source:
                if not -index - 1 <= source < index:
                    raise ConfigError(f"rows.{index} ({row.block}): expected inputs from rows before it, got {source}")
        wrong = [output for output in self.outputs if not 0 <= output < len(self.rows)]
        if wrong or not self.outputs:
            raise ConfigError(f"outputs: expected rows from 0 to {len(self.rows) - 1}, got {list(self.outputs)}")

    def build(self) -> LayerTable:
        """The module with fresh weights.

        Raises:
            ConfigError: arguments that a block does not take, or maps of unequal size joined.
        """
        return LayerTable(self)


def check_block(name: str, where: str, known: Sequence[str] | dict[str, Any]) -> None:
    """Refuses a block that there is not, naming close ones.

    Raises:
        ConfigError: no block has this name.
    """
    if name not in known:
        close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else f"known blocks: {', '.join(known)}"
        raise ConfigError(f"{where}: there is no block '{name}'; {hint}")


def _place(source: int, index: int) -> int:
    """Position among image (0) and rows (from 1) of a row's input."""
    return index + 1 + source if source < 0 else source + 1


def _build(row: TableRow, index: int, inputs: int) -> Built:
    try:
        return LAYERS[row.block](inputs, row.repeats, *row.args)
    except (TypeError, ValueError, ConfigError) as error:
        raise ConfigError(f"rows.{index} ({row.block}): cannot be built from {list(row.args)}: {error}") from error


def _expect(block: str, name: str, got: object, only: object) -> None:
    if got != only:
        raise ConfigError(f"{block} has {name} {only} here, got {got}")


def _once(block: str, repeats: int, layer: nn.Module) -> nn.Module:
    _expect(block, "repeats", repeats, 1)
    return layer
