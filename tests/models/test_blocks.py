# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors

import pytest
import torch
from torch import nn

from boxwright.models.blocks import (
    SPP,
    SPPF,
    Concat,
    Conv,
    Focus,
    Proto,
    RepVGGDW,
    SCDown,
    Upsample,
    fold_,
    join,
)
from boxwright.models.stages import C2f, C2fCIB


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


@pytest.mark.parametrize(
    ("act", "expected"),
    [("silu", [-0.26894, 0.73106]), ("relu", [0.0, 1.0]), ("hardswish", [-1 / 3, 2 / 3]), ("none", [-1.0, 1.0])],
)
def test_activations_by_name_before_and_after_folding(act, expected):
    conv = Conv(1, 1, act=act).eval()
    conv.conv.weight.data.fill_((1 + 1e-3) ** 0.5)  # undoes the norm's division
    x = torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1)

    for _ in range(2):
        with torch.no_grad():
            assert conv(x).flatten().tolist() == pytest.approx(expected, abs=1e-5)
        conv.fold_()


def test_scdown_chooses_channels_first_and_places_without_activation():
    block = warmed(SCDown(4, 8), 4)
    x = torch.randn(1, 4, 6, 6, generator=torch.Generator().manual_seed(0))

    assert (block.depthwise.conv.groups, block.depthwise.conv.stride) == (8, (2, 2))
    with torch.no_grad():
        point = block.point(x)
        torch.testing.assert_close(block(x), block.depthwise.bn(block.depthwise.conv(point)))


def test_focus_lays_neighbours_out_as_channels():
    block = Focus(1, 4, 1).eval()
    block.conv.conv.weight.data.copy_(torch.eye(4).view(4, 4, 1, 1))
    x = torch.arange(8.0).view(1, 1, 2, 4)  # rows 0 1 2 3 and 4 5 6 7

    with torch.no_grad():
        raw = block.conv.conv(torch.cat([x[..., a::2, b::2] for b in (0, 1) for a in (0, 1)], 1))
        found = block(x)
    assert raw[0, :, 0, :].tolist() == [[0, 2], [4, 6], [1, 3], [5, 7]]
    torch.testing.assert_close(found, block.conv.act(block.conv.bn(raw)))


def test_a_focus_stem_is_a_6x6_convolution():
    """The later stem is the same function with its weights laid out anew (spec/architectures 2)."""
    focus, conv = Focus(3, 5, 3).eval(), Conv(3, 5, 6, 2, padding=2).eval()
    with torch.no_grad():
        weight = focus.conv.conv.weight.view(5, 4, 3, 3, 3)
        for part, (row, column) in enumerate(((0, 0), (1, 0), (0, 1), (1, 1))):
            conv.conv.weight[:, :, row::2, column::2] = weight[:, part]
        x = torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(conv(x), focus(x), rtol=1e-5, atol=1e-5)


def test_repvgg_folds_to_one_convolution():
    block = warmed(RepVGGDW(3), 3)
    x = torch.randn(2, 3, 9, 8, generator=torch.Generator().manual_seed(0))

    with torch.no_grad():
        before = block(x)
        torch.testing.assert_close(before, nn.functional.silu(block.large(x) + block.small(x)))
        fold_(block)
        fold_(block)  # a second time changes nothing
        torch.testing.assert_close(block(x), before, rtol=1e-5, atol=1e-5)
    assert list(block.state_dict()) == ["large.conv.weight", "large.conv.bias"]


def test_a_folded_block_with_large_kernels():
    block = warmed(C2fCIB(6, 8, 2, large=True), 6)
    x = torch.randn(1, 6, 7, 7, generator=torch.Generator().manual_seed(0))

    with torch.no_grad():
        before = block(x)
        fold_(block)
        torch.testing.assert_close(block(x), before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("outputs", "added"), [(8, True), (6, False)])
def test_residual_sppf_has_a_linear_entry_and_adds_where_it_fits(outputs, added):
    block = warmed(SPPF(8, outputs, residual=True), 8)
    plain = SPPF(8, outputs).eval()
    plain.load_state_dict(block.state_dict())
    plain.entry.act = nn.Identity()
    x = torch.randn(1, 8, 6, 6, generator=torch.Generator().manual_seed(0))

    with torch.no_grad():
        torch.testing.assert_close(block(x), plain(x) + x if added else plain(x))


def test_spp_pools_in_parallel_what_sppf_pools_in_turn():
    one, other = warmed(SPP(8, 6), 8), SPPF(8, 6).eval()
    other.load_state_dict(one.state_dict())
    x = torch.randn(1, 8, 16, 16, generator=torch.Generator().manual_seed(0))

    with torch.no_grad():
        torch.testing.assert_close(one(x), other(x))


@pytest.mark.parametrize("upsample", ["transposed", "nearest"])
def test_prototypes_have_twice_the_size(upsample):
    block = warmed(Proto(6, 4, 5, upsample=upsample), 6)
    x = torch.randn(1, 6, 4, 3, generator=torch.Generator().manual_seed(0))

    with torch.no_grad():
        narrow = block.conv1(x)
        if upsample == "nearest":
            wide = narrow.repeat_interleave(2, 2).repeat_interleave(2, 3)
        else:
            wide = nn.functional.conv_transpose2d(narrow, block.up.weight, block.up.bias, stride=2)
        expected = block.conv3(block.conv2(wide))
        found = block(x)
    assert found.shape == (1, 5, 8, 6)
    torch.testing.assert_close(found, expected)
