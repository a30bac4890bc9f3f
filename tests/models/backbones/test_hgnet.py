# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors

import pytest
import torch
from torch.nn import functional

from boxwright.errors import ConfigError
from boxwright.models.backbones.hgnet import HGBlock, HGNetConfig, HGStem, LightConv
from boxwright.models.blocks import Conv


def test_maps_and_layers_of_the_large_network():
    with torch.device("meta"):
        model = HGNetConfig().build()
        maps = model(torch.zeros(1, 3, 64, 96))

    assert model.strides == (4, 8, 16, 32)
    assert [tuple(x.shape[1:]) for x in maps] == [(128, 16, 24), (512, 8, 12), (1024, 4, 6), (2048, 2, 3)]
    names = " ".join(type(part).__name__ for part in model.layers)
    assert names == "HGStem HGBlock Conv HGBlock Conv HGBlock HGBlock HGBlock Conv HGBlock"
    blocks = [part for part in model.layers if isinstance(part, HGBlock)]
    assert [part.add for part in blocks] == [False, False, False, True, True, False]
    assert [isinstance(part.units[0], LightConv) for part in blocks] == [False, False, True, True, True, True]


def plain(conv: Conv, x: torch.Tensor, stride: int, padding: int) -> torch.Tensor:
    """ReLU of a convolution whose norm is fresh."""
    scale = (1 + conv.bn.eps) ** -0.5
    return functional.conv2d(x, conv.conv.weight, stride=stride, padding=padding).mul(scale).relu()


def test_stem_pads_right_and_below():
    torch.manual_seed(0)
    stem = HGStem(3, 8, 6).eval()
    x = torch.rand(1, 3, 32, 32)

    with torch.no_grad():
        found = stem(x)
        first = functional.pad(plain(stem.conv1, x, 2, 1), (0, 1, 0, 1))
        narrow = functional.pad(plain(stem.conv2a, first, 1, 0), (0, 1, 0, 1))
        joined = torch.cat((functional.max_pool2d(first, 2, 1), plain(stem.conv2b, narrow, 1, 0)), dim=1)
        expected = plain(stem.conv4, plain(stem.conv3, joined, 2, 1), 1, 0)

    assert found.shape == (1, 6, 8, 8)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_a_block_joins_its_input_and_every_map_of_the_chain():
    torch.manual_seed(0)
    block = HGBlock(4, 2, 4, 3, 3, light=False, residual=True).eval()
    x = torch.rand(1, 4, 6, 6)

    with torch.no_grad():
        found = block(x)
        chain = [x]
        for unit in block.units:
            chain.append(plain(unit, chain[-1], 1, 1))
        expected = plain(block.excite, plain(block.squeeze, torch.cat(chain, 1), 1, 0), 1, 0) + x

    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_stages_that_do_not_fit():
    with pytest.raises(
        ConfigError, match=r"backbone\.blocks: expected 4 positive numbers, one per stage, got \(1, 1\)"
    ):
        HGNetConfig(blocks=(1, 1))
