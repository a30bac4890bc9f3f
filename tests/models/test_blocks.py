# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors

import pytest
import torch
from torch import nn

from boxwright.models.blocks import C2, SPPF, Bottleneck, C2f, Concat, Conv, Upsample, fold_, join, make_block


def warmed(module: nn.Module, channels: int) -> nn.Module:
    """The module in eval mode with batch statistics that are not the initial 0 and 1."""
    generator = torch.Generator().manual_seed(1)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.copy_(torch.randn(part.num_features, generator=generator))
            part.running_var.copy_(torch.rand(part.num_features, generator=generator) + 0.5)
            nn.init.normal_(part.weight, 1.0, 0.3, generator=generator)
            nn.init.normal_(part.bias, 0.0, 0.3, generator=generator)
    return module.eval()


def test_conv_is_convolution_norm_and_silu_with_the_published_constants():
    conv = Conv(3, 4, 3, 2)

    assert (conv.bn.eps, conv.bn.momentum, conv.bn.affine, conv.bn.track_running_stats) == (1e-3, 0.03, True, True)
    assert conv.conv.bias is None
    x = torch.randn(2, 3, 6, 8, generator=torch.Generator().manual_seed(0))
    raw = nn.functional.conv2d(x, conv.conv.weight, stride=2, padding=1)
    mean, var = raw.mean((0, 2, 3), keepdim=True), raw.var((0, 2, 3), unbiased=False, keepdim=True)
    normal = (raw - mean) / torch.sqrt(var + 1e-3)
    torch.testing.assert_close(conv(x), normal * torch.sigmoid(normal), rtol=1e-5, atol=1e-6)


def test_convolution_weights_keep_the_framework_initialisation():
    torch.manual_seed(0)
    conv = Conv(64, 64, 3).conv.weight
    bound = 1 / (64 * 9) ** 0.5  # kaiming uniform with a = sqrt(5)

    assert bound * 0.99 < conv.abs().max() <= bound
    assert conv.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)


@pytest.mark.parametrize(("shortcut", "outputs", "added"), [(True, 8, True), (False, 8, False), (True, 6, False)])
def test_bottleneck_adds_its_input_only_with_shortcut_and_equal_widths(shortcut, outputs, added):
    block = warmed(Bottleneck(8, outputs, shortcut=shortcut), 8)
    x = torch.randn(1, 8, 4, 4, generator=torch.Generator().manual_seed(0))

    with torch.no_grad():
        inner = block.conv2(block.conv1(x))
        torch.testing.assert_close(block(x), x + inner if added else inner)


def test_c2_sends_the_first_half_through_the_units_and_keeps_the_second():
    block = warmed(C2(6, 8, 2, shortcut=False), 6)
    x = torch.randn(2, 6, 5, 7)

    first, second = block.entry(x).split(4, dim=1)
    for unit in block.units:
        first = unit(first)

    assert torch.allclose(block(x), block.exit(torch.cat((first, second), dim=1)), atol=1e-6)
    assert isinstance(make_block("c2", 6, 8, 1, shortcut=False), C2)


def test_c2f_joins_both_halves_and_every_unit_in_order():
    block = warmed(C2f(6, 8, 2, shortcut=True), 6)
    x = torch.randn(1, 6, 4, 4, generator=torch.Generator().manual_seed(0))

    with torch.no_grad():
        first, second = block.entry(x)[:, :4], block.entry(x)[:, 4:]
        third = block.units[0](second)
        fourth = block.units[1](third)
        expected = block.exit(torch.cat((first, second, third, fourth), 1))
        torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_sppf_equals_parallel_pools_of_5_9_and_13(memory_format):
    block = warmed(SPPF(8, 8), 8).to(memory_format=memory_format)
    x = torch.randn(1, 8, 16, 16, generator=torch.Generator().manual_seed(0)).to(memory_format=memory_format)

    with torch.no_grad():
        narrow = block.entry(x)
        pools = [nn.functional.max_pool2d(narrow, k, 1, k // 2) for k in (5, 9, 13)]
        torch.testing.assert_close(block(x), block.exit(torch.cat((narrow, *pools), 1)))


def test_folding_leaves_no_norm_and_the_same_numbers():
    block = warmed(C2f(6, 8, 2, shortcut=True), 6)
    x = torch.randn(2, 6, 5, 5, generator=torch.Generator().manual_seed(0))

    with torch.no_grad():
        before = block(x)
        fold_(block)
        fold_(block)  # a second time changes nothing
        torch.testing.assert_close(block(x), before, rtol=1e-5, atol=1e-5)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in block.modules())


def test_folding_by_hand():
    conv = Conv(1, 1).eval()
    conv.conv.weight.data.fill_(2.0)
    conv.bn.running_mean.fill_(3.0)
    conv.bn.running_var.fill_(4.0 - 1e-3)
    conv.bn.weight.data.fill_(5.0)
    conv.bn.bias.data.fill_(7.0)

    conv.fold_()

    # w * gamma / sqrt(var + eps) = 2 * 5 / 2; beta + (0 - mean) * gamma / sqrt(var + eps) = 7 - 3 * 5 / 2
    assert conv.conv.weight.item() == pytest.approx(5.0, rel=1e-6)
    assert conv.conv.bias.item() == pytest.approx(-0.5, rel=1e-6)


def test_make_block_builds_by_name():
    block = make_block("c2f", 6, 8, 3, shortcut=False)

    assert isinstance(block, C2f)
    assert len(block.units) == 3
    assert not block.units[0].add


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_join_has_the_gradients_of_cat_and_hands_them_out_dense(memory_format):
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, width, 4, 6, generator=generator).to(memory_format=memory_format) for width in (3, 1, 5)]
    factor = torch.randn(2, 9, 4, 6, generator=generator).to(memory_format=memory_format)
    gradients = {}
    for function in (join, lambda parts: torch.cat(parts, 1)):
        leaves = [x.detach().requires_grad_() for x in maps]
        joined = function(leaves)
        joined.backward(factor)
        gradients[function] = joined.detach(), *(leaf.grad for leaf in leaves)

    for ours, expected in zip(*gradients.values(), strict=True):
        assert torch.equal(ours, expected)
    if memory_format is torch.channels_last:
        assert all(part.is_contiguous(memory_format=memory_format) for part in gradients[join])
    with torch.no_grad():
        assert torch.equal(Concat()(*maps), torch.cat(maps, 1))


def test_upsample_repeats_cells_and_sums_their_gradients():
    x = torch.arange(4.0).view(1, 1, 2, 2).requires_grad_()
    y = Upsample()(x)
    y.backward(torch.arange(16.0).view(1, 1, 4, 4))

    assert y.tolist() == [[[[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]]]
    assert x.grad.tolist() == [[[[0 + 1 + 4 + 5, 2 + 3 + 6 + 7], [8 + 9 + 12 + 13, 10 + 11 + 14 + 15]]]]
    with torch.no_grad():
        assert torch.equal(Upsample()(x), y)


def test_hand_written_gradients_agree_with_differences():
    torch.manual_seed(0)
    block = C2f(4, 4, 2, shortcut=True).double().eval()
    x = torch.randn(1, 4, 3, 3, dtype=torch.float64, requires_grad=True)

    assert torch.autograd.gradcheck(lambda x: Upsample()(block(x)), (x,))
