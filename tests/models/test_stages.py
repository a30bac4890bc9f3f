# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors

import pytest
import torch
from torch import nn

from boxwright.errors import ConfigError
from boxwright.models.attention import PSABlock
from boxwright.models.blocks import Conv, RepVGGDW, SCDown
from boxwright.models.stages import C2, C3, CIB, Bottleneck, C2f, C2fCIB, C3k, C3k2, check_each, make_block, make_down


def picture(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("shortcut", "outputs", "added"), [(True, 8, True), (False, 8, False), (True, 6, False)])
def test_bottleneck_adds_its_input_only_with_shortcut_and_equal_widths(shortcut, outputs, added):
    block = Bottleneck(8, outputs, shortcut=shortcut).eval()
    x = picture(1, 8, 4, 4)

    with torch.no_grad():
        inner = block.conv2(block.conv1(x))
        torch.testing.assert_close(block(x), x + inner if added else inner)


def test_c2_sends_the_first_half_through_the_units_and_keeps_the_second():
    block = C2(6, 8, 2, shortcut=False).eval()
    x = picture(2, 6, 5, 7)

    first, second = block.entry(x).split(4, dim=1)
    for unit in block.units:
        first = unit(first)

    assert torch.allclose(block(x), block.exit(torch.cat((first, second), dim=1)), atol=1e-6)


def test_c2f_joins_both_halves_and_every_unit_in_order():
    block = C2f(6, 8, 2, shortcut=True).eval()
    x = picture(1, 6, 4, 4)

    with torch.no_grad():
        first, second = block.entry(x)[:, :4], block.entry(x)[:, 4:]
        third = block.units[0](second)
        fourth = block.units[1](third)
        expected = block.exit(torch.cat((first, second, third, fourth), 1))
        torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize(("kind", "kernels"), [(C3, (1, 3)), (C3k, (3, 3))])
def test_c3_joins_the_units_before_the_bypass(kind, kernels):
    block = kind(6, 8, 2, shortcut=True).eval()
    x = picture(1, 6, 5, 5)

    assert [(unit.conv1.conv.kernel_size[0], unit.conv2.conv.kernel_size[0]) for unit in block.units] == [kernels] * 2
    with torch.no_grad():
        first = block.units[1](block.units[0](block.entry(x)))
        torch.testing.assert_close(block(x), block.exit(torch.cat((first, block.bypass(x)), 1)))


def test_units_of_c3k2():
    """Half as wide bottlenecks; a C3k of two; a bottleneck, then attention (spec/architectures 2)."""
    plain, whole, attentive = (make_block(f"c3k2{of}", 16, 32, 1, shortcut=False) for of in ("", "_c3k", "_attention"))

    assert isinstance(plain, C3k2)
    assert (plain.units[0].conv1.conv.out_channels, plain.units[0].add) == (8, True)  # 16 / 2; always with a shortcut
    assert isinstance(whole.units[0], C3k)
    assert [unit.add for unit in whole.units[0].units] == [True, True]
    assert [type(part) for part in attentive.units[0]] == [Bottleneck, PSABlock]


def test_expand_is_the_width_of_the_units():
    assert make_block("c3k2", 8, 32, 2, shortcut=True, expand=0.25).hidden == 8
    assert make_block("c2f", 8, 32, 2, shortcut=True).hidden == 16


@pytest.mark.parametrize("large", [False, True])
def test_cib_alternates_depthwise_and_1x1_convolutions(large):
    unit = CIB(4, large=large).eval()

    layers = [part for part in unit.convs if isinstance(part, Conv)]
    shapes = [(part.conv.kernel_size[0], part.conv.groups, part.conv.out_channels) for part in layers]
    middle = [] if large else [(3, 8, 8)]
    assert shapes == [(3, 4, 4), (1, 1, 8), *middle, (1, 1, 4), (3, 4, 4)]
    assert isinstance(unit.convs[2], RepVGGDW) == large
    x = picture(1, 4, 6, 6)
    with torch.no_grad():
        torch.testing.assert_close(unit(x), x + unit.convs(x))


def test_make_block_builds_by_name():
    for name, kind in (("c2f", C2f), ("c2", C2), ("c3", C3)):
        block = make_block(name, 6, 8, 3, shortcut=False)
        assert type(block) is kind
        assert [unit.add for unit in block.units] == [False] * 3
    block = make_block("c2fcib_large", 6, 8, 1, shortcut=False)
    assert isinstance(block, C2fCIB)
    assert block.units[0].add  # as published, wherever it stands


def test_make_down_halves():
    assert isinstance(make_down("scdown", 4, 8), SCDown)
    for name in ("conv", "scdown"):
        assert make_down(name, 4, 8)(torch.zeros(1, 4, 6, 10)).shape == (1, 8, 3, 5)


def test_lists_must_fit_their_places():
    check_each("backbone.block", "c2f", 4, "stage")
    with pytest.raises(ConfigError, match=r"^backbone\.block: expected one value, or 4 \(one per stage\), got 2$"):
        check_each("backbone.block", ("c2f", "c3"), 4, "stage")


@pytest.mark.parametrize("name", ["c3", "c3k2_attention", "c2fcib_large"])
def test_both_memory_formats_agree(name):
    torch.manual_seed(0)
    block = make_block(name, 8, 16, 2, shortcut=True).double()
    x = picture(2, 8, 6, 4).double()
    results = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        block.zero_grad()
        leaf = x.clone(memory_format=memory_format).requires_grad_()
        y = block.to(memory_format=memory_format)(leaf)
        y.square().sum().backward()
        results.append((y.detach(), leaf.grad))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_modules_follow_the_order_of_published_names():
    """Importers walk both in order: entry, (bypass,) exit, units."""
    for name, order in (("c2f", ["entry", "exit", "units"]), ("c3", ["entry", "bypass", "exit", "units"])):
        block = make_block(name, 4, 8, 1, shortcut=True)
        assert [child for child, part in block.named_children() if not isinstance(part, nn.SiLU)] == order
