# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors

import pytest
import torch
from torch import nn

from boxwright.config import from_dict
from boxwright.errors import ConfigError
from boxwright.models.backbones.mobilenet import ROWS, BlockRow, InvertedResidual, MobileNetV3Config, SqueezeExcite
from boxwright.models.blocks import fold_


def kinds(module: nn.Module) -> list[str]:
    return [type(part).__name__ for part in module]


@pytest.mark.parametrize(
    ("values", "channels", "strides", "parameters"),
    [
        ({}, (24, 48, 96), (8, 16, 32), 870_560),
        ({"squeeze": "truncated"}, (24, 48, 96), (8, 16, 32), 864_942),
        ({"squeeze": "truncated", "entry": "pelee", "width": 0.5}, (16, 24, 48), (16, 32, 64), 702_894),
        ({"entry": "focus"}, (24, 48, 96), (8, 16, 32), 878_192),
    ],
)
def test_maps_have_the_channels_and_strides_it_promises(values, channels, strides, parameters):
    with torch.device("meta"):
        backbone = from_dict(MobileNetV3Config, values).build()
        maps = backbone(torch.zeros(2, 3, 128, 64))

    assert (backbone.channels, backbone.strides) == (channels, strides)
    assert [tuple(x.shape) for x in maps] == [
        (2, width, 128 // stride, 64 // stride) for width, stride in zip(channels, strides, strict=True)
    ]
    assert sum(value.numel() for value in backbone.parameters()) == parameters


def test_the_paper_excites_after_the_activation_with_rounded_widths():
    unit = InvertedResidual(40, 48, BlockRow(48, 120, 5, 1, True, "hardswish"), "rounded")

    assert kinds(unit.conv) == ["Conv", "Conv", "SqueezeExcite", "Conv"]
    assert [part.act_name for part in unit.conv if hasattr(part, "act_name")] == ["hardswish", "hardswish", "none"]
    assert unit.conv[2].fc[0].out_features == 32


def test_the_published_light_variant_excites_before_it_with_a_quarter_of_the_width():
    unit = InvertedResidual(40, 48, BlockRow(48, 120, 5, 1, True, "hardswish"), "truncated")

    assert kinds(unit.conv) == ["Conv", "Conv", "SqueezeExcite", "Hardswish", "Conv"]
    assert [part.act_name for part in unit.conv if hasattr(part, "act_name")] == ["hardswish", "none", "none"]
    assert unit.conv[2].fc[0].out_features == 30


@pytest.mark.parametrize("squeeze", ["rounded", "truncated"])
def test_the_first_row_does_not_widen_and_excites_after_the_activation(squeeze):
    unit = InvertedResidual(16, 16, ROWS[0], squeeze)

    assert kinds(unit.conv) == ["Conv", "SqueezeExcite", "Conv"]
    assert unit.conv[0].act_name == "relu"
    assert unit.conv[0].conv.groups == 16


def test_only_units_that_keep_the_shape_add_their_input():
    layers = MobileNetV3Config().build().layers

    assert [index for index, unit in enumerate(layers) if getattr(unit, "add", False)] == [3, 5, 6, 8, 10, 11]


def test_squeeze_weighs_channels_by_their_means():
    block = SqueezeExcite(2, 1)
    with torch.no_grad():
        for name, value in block.named_parameters():
            value.fill_(1.0 if "weight" in name else 0.0)
        x = torch.tensor([[[[0.0, 1.0]], [[2.0, 1.0]]]])  # means 0.5 and 1.5: hidden 2, hard sigmoid of 2 is 5/6

        torch.testing.assert_close(block(x), x * 5 / 6)


def test_folding_keeps_the_maps():
    torch.manual_seed(0)
    backbone = MobileNetV3Config(squeeze="truncated").build()
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        backbone(x)  # moves the statistics away from 0 and 1
        backbone.eval()
        before = backbone(x)
        fold_(backbone)
        after = backbone(x)

    assert not any(isinstance(part, nn.BatchNorm2d) for part in backbone.modules())
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_widths_have_to_be_positive():
    with pytest.raises(ConfigError, match=r"backbone.width: expected a positive factor, got 0.0"):
        from_dict(MobileNetV3Config, {"width": 0.0})
