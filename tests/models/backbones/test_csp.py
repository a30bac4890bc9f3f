# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors

import pytest
import torch

from boxwright.config import from_dict
from boxwright.errors import ConfigError
from boxwright.models.backbones.csp import CSPConfig


def test_maps_have_the_channels_and_strides_it_promises():
    backbone = CSPConfig(widths=(4, 6, 8, 10), depths=(1, 0, 2)).build()
    maps = backbone(torch.zeros(2, 3, 32, 48))

    assert backbone.channels == (6, 8, 10)
    assert backbone.strides == (4, 8, 16)
    assert [tuple(x.shape) for x in maps] == [(2, 6, 8, 12), (2, 8, 4, 6), (2, 10, 2, 3)]


def test_depths_are_the_repeats_of_each_stage():
    backbone = CSPConfig(widths=(4, 6, 8, 10), depths=(1, 0, 2)).build()

    assert [len(block.units) for block in backbone.layers[2:7:2]] == [1, 0, 2]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"widths": [16, 32], "depths": [1, 2]}, "backbone.widths: expected one width for the stem and one per depth"),
        ({"widths": [16, 0], "depths": [1]}, "widths must be positive"),
        ({"block": "c9"}, "block: expected 'c2f'"),
    ],
)
def test_wrong_numbers_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        from_dict(CSPConfig, values)


def test_the_stages_of_yolov10_by_data():
    config = CSPConfig(
        widths=(4, 8, 16, 32, 64),
        depths=(1, 1, 1, 1),
        block=("c2f", "c3", "c2fcib", "c2fcib_large"),
        down=("conv", "conv", "scdown", "scdown"),
        attention="psa",
    )
    backbone = config.build()

    names = [type(part).__name__ for part in backbone.layers]
    stages = ["Conv", "C2f", "Conv", "C3", "SCDown", "C2fCIB", "SCDown", "C2fCIB"]
    assert names == ["Conv", *stages, "SPPF", "PSA"]
    assert [x.shape[1] for x in backbone(torch.zeros(2, 3, 64, 64))] == [8, 16, 32, 64]
    assert [part.units[0].convs[2].__class__.__name__ for part in backbone.layers[6:9:2]] == ["Conv", "RepVGGDW"]


def test_the_last_map_comes_after_context_and_attention():
    backbone = CSPConfig(widths=(4, 8, 16), depths=(1, 1), attention="c2psa", attention_depth=2).build().eval()
    x = images = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))

    with torch.no_grad():
        every = [x := part(x) for part in backbone.layers]
        fine, coarse = backbone(images)
    assert len(backbone.layers[-1].units) == 2
    torch.testing.assert_close(fine, every[2])
    torch.testing.assert_close(coarse, every[-1])


def test_widths_of_halvings_and_of_units_are_their_own():
    backbone = CSPConfig(
        block="c3k2", widths=(4, 16, 32), depths=(1, 1), down_widths=(8, 24), expand=(0.25, 0.5), context="none"
    ).build()

    assert [backbone.layers[i].conv.out_channels for i in (1, 3)] == [8, 24]
    assert [backbone.layers[i].hidden for i in (2, 4)] == [4, 16]
    assert len(backbone.layers) == 5


def test_spring_2021_pools_before_the_last_block_which_has_no_shortcut():
    backbone = CSPConfig(
        block="c3", stem="focus", context="spp", context_first=True, widths=(4, 8, 16), depths=(1, 1)
    ).build()

    assert [type(part).__name__ for part in backbone.layers] == ["Focus", "Conv", "C3", "Conv", "SPP", "C3"]
    assert [backbone.layers[i].units[0].add for i in (2, 5)] == [True, False]
    assert [tuple(x.shape) for x in backbone(torch.zeros(1, 3, 32, 48))] == [(1, 8, 8, 12), (1, 16, 4, 6)]


@pytest.mark.parametrize("stem", ["conv3", "conv6", "focus"])
def test_every_stem_has_stride_2(stem):
    backbone = CSPConfig(stem=stem, widths=(4, 8), depths=(1,)).build()
    assert backbone.layers[0](torch.zeros(1, 3, 32, 64)).shape == (1, 4, 16, 32)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"block": ["c2f", "c3"]}, r"backbone.block: expected one value, or 4 \(one per stage\), got 2"),
        ({"down_widths": [8]}, "backbone.down_widths: expected 4 positive widths"),
        ({"context": "none", "context_first": True}, "backbone.context_first: expected a context"),
    ],
)
def test_options_that_do_not_fit_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        from_dict(CSPConfig, values)
