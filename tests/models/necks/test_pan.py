# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors

import pytest
import torch
from torch import nn

from boxwright.errors import ConfigError
from boxwright.models.necks.pan import PANConfig


def test_maps_keep_their_strides_and_get_the_configured_widths():
    neck = PANConfig(widths=(6, 10)).build((4, 8, 12), (4, 8, 16))
    maps = (torch.zeros(1, 4, 16, 24), torch.zeros(1, 8, 8, 12), torch.zeros(1, 12, 4, 6))

    assert neck.strides == (8, 16)
    assert [tuple(x.shape) for x in neck(maps)] == [(1, 6, 8, 12), (1, 10, 4, 6)]


def test_wiring_of_three_levels():
    neck = PANConfig(widths=(6, 10, 14)).build((4, 8, 12), (8, 16, 32)).eval()
    generator = torch.Generator().manual_seed(0)
    fine, middle, coarse = (
        torch.randn(1, width, side, side, generator=generator) for width, side in ((4, 8), (8, 4), (12, 2))
    )

    def up(x: torch.Tensor) -> torch.Tensor:
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)

    with torch.no_grad():
        results = neck((fine, middle, coarse))
        middle_up = neck.up[2](torch.cat((up(coarse), middle), 1))
        first = neck.up[5](torch.cat((up(middle_up), fine), 1))
        second = neck.down[2](torch.cat((neck.down[0](first), middle_up), 1))
        third = neck.down[5](torch.cat((neck.down[3](second), coarse), 1))

    for found, expected in zip(results, (first, second, third), strict=True):
        torch.testing.assert_close(found, expected)


def test_blocks_have_no_shortcut():
    neck = PANConfig(depth=2).build((64, 128, 256), (8, 16, 32))

    units = [unit for part in neck.layers if hasattr(part, "units") for unit in part.units]
    assert len(units) == 8
    assert not any(unit.add for unit in units)


def test_more_levels_than_the_backbone_has():
    with pytest.raises(ConfigError, match=r"neck.widths: expected 1 to 2 levels .* got 3"):
        PANConfig(widths=(1, 2, 3)).build((4, 8), (8, 16))


def test_one_level_passes_the_map_through():
    neck = PANConfig(widths=(12,)).build((4, 12), (8, 16))
    x = torch.ones(1, 12, 2, 2)

    assert neck((torch.zeros(1, 4, 4, 4), x))[0] is x
    assert not list(nn.Module.parameters(neck))


def test_wiring_with_lateral_convolutions():
    """YOLOv5: what the way down joins are the outputs of the 1x1 convolutions (spec/architectures 3.2)."""
    neck = PANConfig(block="c3", widths=(6, 10, 14), lateral=True).build((4, 8, 12), (8, 16, 32)).eval()
    generator = torch.Generator().manual_seed(0)
    fine, middle, coarse = (
        torch.randn(1, width, side, side, generator=generator) for width, side in ((4, 8), (8, 4), (12, 2))
    )

    def up(x: torch.Tensor) -> torch.Tensor:
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)

    names = ["Conv", "Upsample", "Concat", "C3"] * 2 + ["Conv", "Concat", "C3"] * 2
    assert [type(part).__name__ for part in neck.layers] == names
    assert [neck.up[i].conv.out_channels for i in (0, 4)] == [10, 6]
    with torch.no_grad():
        results = neck((fine, middle, coarse))
        tenth = neck.up[0](coarse)
        fourteenth = neck.up[4](neck.up[3](torch.cat((up(tenth), middle), 1)))
        first = neck.up[7](torch.cat((up(fourteenth), fine), 1))
        second = neck.down[2](torch.cat((neck.down[0](first), fourteenth), 1))
        third = neck.down[5](torch.cat((neck.down[3](second), tenth), 1))
    for found, expected in zip(results, (first, second, third), strict=True):
        torch.testing.assert_close(found, expected)


def test_every_block_and_halving_by_data():
    config = PANConfig(
        widths=(8, 8, 8), block=("c2f", "c3", "c3k2", "c2fcib"), depth=(1, 2, 3, 4), down=("conv", "scdown")
    )
    neck = config.build((8, 8, 8), (8, 16, 32))

    blocks = [neck.up[2], neck.up[5], neck.down[2], neck.down[5]]
    assert [type(block).__name__ for block in blocks] == ["C2f", "C3", "C3k2", "C2fCIB"]
    assert [len(block.units) for block in blocks] == [1, 2, 3, 4]
    assert [type(neck.down[i]).__name__ for i in (0, 3)] == ["Conv", "SCDown"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"block": ("c2f",)}, r"neck.block: expected one value, or 4 \(one per block\), got 1"),
        ({"depth": (1, 2)}, "neck.depth: expected one value, or 4"),
        ({"down": ("conv",)}, r"neck.down: expected one value, or 2 \(one per halving\), got 1"),
    ],
)
def test_lists_that_do_not_fit(values, message):
    with pytest.raises(ConfigError, match=message):
        PANConfig(**values)
