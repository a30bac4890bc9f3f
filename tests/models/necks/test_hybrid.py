# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors

import math

import pytest
import torch
from torch import nn

from boxwright.errors import ConfigError
from boxwright.models.blocks import fold_
from boxwright.models.necks.hybrid import AIFI, HybridConfig, RepC3, RepConv, position_code

SMALL = HybridConfig(width=16, hidden=32, heads=4, depth=1)


def with_statistics(module: nn.Module) -> nn.Module:
    """Norms that are no longer at 0 and 1."""
    generator = torch.Generator().manual_seed(1)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.1, generator=generator)
            part.running_var.uniform_(0.5, 1.5, generator=generator)
    return module.eval()


def test_position_code_has_the_published_order():
    """Row t is x = t // rows, y = t % rows: on a map of 2 rows and 3 columns row 1 is the code of (0, 1)."""
    code = position_code(2, 3, 8)

    def of(x: float, y: float) -> list[float]:
        waves = [1.0, 10000.0 ** (-1 / 2)]
        return [f(place * w) for place in (x, y) for f in (math.sin, math.cos) for w in waves]

    for row, (x, y) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]):
        assert code[row].tolist() == pytest.approx(of(x, y), abs=1e-12)


def test_encoder_layer_equals_its_definition():
    torch.manual_seed(0)
    layer = AIFI(16, 32, 4).double().eval()
    x = torch.randn(2, 16, 3, 5, dtype=torch.float64)

    with torch.no_grad():
        found = layer(x)
        tokens = x.flatten(2).transpose(1, 2)
        tokens = layer.norm1(tokens + layer.attention(tokens, position_code(3, 5, 16)[None]))
        inner = layer.expand(tokens)
        gelu = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
        expected = layer.norm2(tokens + layer.reduce(gelu)).transpose(1, 2).reshape(2, 16, 3, 5)

    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_two_kernels_become_one():
    torch.manual_seed(0)
    block = with_statistics(RepConv(4))
    x = torch.randn(1, 4, 6, 7)

    with torch.no_grad():
        expected = block(x)
        fold_(block)
        fold_(block)
        found = block(x)

    assert [name for name, _ in block.named_parameters()] == ["large.conv.weight", "large.conv.bias"]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_a_block_sums_both_ways_and_widens_only_what_was_narrowed():
    torch.manual_seed(0)
    narrow, full = RepC3(8, 4, 2, expand=0.5).eval(), RepC3(8, 4, 2, expand=1.0).eval()
    x = torch.randn(1, 8, 5, 5)

    with torch.no_grad():
        torch.testing.assert_close(full(x), full.units(full.entry(x)) + full.bypass(x))
        torch.testing.assert_close(narrow(x), narrow.exit(narrow.units(narrow.entry(x)) + narrow.bypass(x)))
    assert (narrow.entry.conv.out_channels, full.entry.conv.out_channels) == (2, 4)


def test_maps_keep_their_sizes_and_every_output_sees_every_input():
    torch.manual_seed(0)
    neck = SMALL.build((4, 8, 12, 16), (4, 8, 16, 32)).eval()
    maps = tuple(torch.randn(1, c, 32 >> i, 48 >> i, requires_grad=True) for i, c in enumerate((4, 8, 12, 16)))

    mixed = neck(maps)

    assert (neck.channels, neck.strides) == ((16, 16, 16), (8, 16, 32))
    assert [tuple(x.shape[1:]) for x in mixed] == [(16, 16, 24), (16, 8, 12), (16, 4, 6)]
    for x in mixed:
        grads = torch.autograd.grad(x.square().sum(), maps[1:], retain_graph=True)
        assert all(grad.abs().sum() > 0 for grad in grads)


def test_order_of_the_layer_table():
    neck = SMALL.build((4, 8, 16), (8, 16, 32))

    names = [type(part).__name__ for part in neck.layers]

    way_up = ["Conv", "Upsample", "Conv", "Concat", "RepC3"]
    assert names == ["Conv", "AIFI", *way_up, *way_up, *["Conv", "Concat", "RepC3"] * 2]
    assert neck.layers[0] is neck.project[2]
    assert (neck.layers[4], neck.layers[9]) == (neck.project[1], neck.project[0])


def test_folding_keeps_the_outputs():
    torch.manual_seed(0)
    neck = with_statistics(SMALL.build((4, 8, 16), (8, 16, 32)))
    maps = tuple(torch.randn(1, c, 16 >> i, 16 >> i) for i, c in enumerate((4, 8, 16)))

    with torch.no_grad():
        expected = neck(maps)
        fold_(neck)
        found = neck(maps)

    assert not any(isinstance(part, nn.BatchNorm2d) for part in neck.modules())
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_what_cannot_be_built():
    with pytest.raises(ConfigError, match=r"neck\.width: expected a multiple of 4 .* and of 8 heads, got 36"):
        HybridConfig(width=36)
    with pytest.raises(ConfigError, match=r"neck\.levels: expected 1 to 2 \(the backbone returns 2 maps\), got 3"):
        SMALL.build((4, 8), (16, 32))
