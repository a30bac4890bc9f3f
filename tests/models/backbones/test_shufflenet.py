# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors

import pytest
import torch
from torch import nn

from boxwright.config import from_dict
from boxwright.errors import ConfigError
from boxwright.models.backbones.shufflenet import ShuffleNetV2Config, ShuffleUnit, interleave
from boxwright.models.blocks import fold_


@pytest.mark.parametrize(
    ("values", "channels", "strides", "parameters"),
    [
        ({}, (116, 232, 464), (8, 16, 32), 776_420),
        ({"entry_width": 8, "stage_widths": [64, 128, 256]}, (64, 128, 256), (8, 16, 32), 244_928),
        ({"entry": "focus", "entry_width": 32, "stage_widths": [64, 128, 256]}, (64, 128, 256), (4, 8, 16), 250_016),
        ({"entry": "pelee"}, (116, 232, 464), (8, 16, 32), 780_572),
    ],
)
def test_maps_have_the_channels_and_strides_it_promises(values, channels, strides, parameters):
    with torch.device("meta"):
        backbone = from_dict(ShuffleNetV2Config, values).build()
        maps = backbone(torch.zeros(2, 3, 128, 64))

    assert (backbone.channels, backbone.strides) == (channels, strides)
    assert [tuple(x.shape) for x in maps] == [
        (2, width, 128 // stride, 64 // stride) for width, stride in zip(channels, strides, strict=True)
    ]
    assert sum(value.numel() for value in backbone.parameters()) == parameters


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_interleaving_is_joining_and_shuffling_in_two_groups(memory_format):
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(2, 3, 4, 5, generator=generator).to(memory_format=memory_format) for _ in range(2))

    mixed = interleave(first, second)

    joined = torch.cat((first, second), 1)
    for output in range(6):  # output channel j * g + k is input channel k * (c / g) + j
        j, k = divmod(output, 2)
        assert torch.equal(mixed[:, output], joined[:, k * 3 + j])
    assert mixed.is_contiguous(memory_format=memory_format)


def test_a_unit_of_stride_one_keeps_half_of_the_channels():
    unit = ShuffleUnit(8, 8, 1).eval()
    x = torch.randn(1, 8, 3, 3, generator=torch.Generator().manual_seed(0))

    with torch.no_grad():
        y = unit(x)

        assert torch.equal(y[:, 0::2], x[:, :4])
        torch.testing.assert_close(y[:, 1::2], unit.branch2(x[:, 4:]))


def test_a_unit_of_stride_two_sees_all_channels_twice():
    unit = ShuffleUnit(6, 10, 2).eval()
    x = torch.randn(1, 6, 4, 4, generator=torch.Generator().manual_seed(0))

    with torch.no_grad():
        y = unit(x)

        assert y.shape == (1, 10, 2, 2)
        torch.testing.assert_close(y[:, 0::2], unit.branch1(x))
        torch.testing.assert_close(y[:, 1::2], unit.branch2(x))
    assert [part.act_name for part in (*unit.branch1, *unit.branch2)] == ["none", "relu", "relu", "none", "relu"]


def test_layers_are_the_stem_and_two_per_stage():
    layers = ShuffleNetV2Config().build().layers

    assert [type(part).__name__ for part in layers] == ["PoolStem", *["ShuffleUnit", "Sequential"] * 3]
    assert [len(part) for part in layers[2::2]] == [3, 7, 3]


def test_folding_and_channels_last_keep_the_maps():
    torch.manual_seed(0)
    backbone = ShuffleNetV2Config(entry="pelee").build()
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        backbone(x)  # moves the statistics away from 0 and 1
        backbone.eval()
        before = backbone(x)
        fold_(backbone)
        after = backbone.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))

    assert not any(isinstance(part, nn.BatchNorm2d) for part in backbone.modules())
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
        assert other.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"stage_widths": [64, 128]},
            "stage_widths: expected one width for each of the 3 stages of stage_units, got 2",
        ),
        ({"stage_widths": [64, 128, 255]}, "stage_widths: expected even widths"),
        ({"stage_units": [4, 1, 4]}, "stage_units of at least 2"),
        ({"entry": "conv6"}, "entry: expected 'paper', 'pelee' or 'focus'"),
    ],
)
def test_wrong_numbers_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        from_dict(ShuffleNetV2Config, values)
