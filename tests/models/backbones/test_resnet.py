# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors

import pytest
import torch
from torch import nn

from boxwright.models.backbones.resnet import Residual, ResNet, ResNetConfig


def built(**options) -> ResNet:
    torch.manual_seed(0)
    return ResNetConfig(**options).build()


@pytest.mark.parametrize(
    ("depth", "channels", "convolutions"),
    [(18, (64, 128, 256, 512), (2, 2, 2, 2)), (50, (256, 512, 1024, 2048), (3, 4, 6, 3))],
)
@pytest.mark.parametrize("variant", ["vd", "plain"])
def test_maps_of_every_stage(depth, channels, convolutions, variant):
    with torch.device("meta"):
        model = ResNetConfig(depth=depth, variant=variant).build()
        maps = model(torch.zeros(1, 3, 64, 96))

    assert model.strides == (4, 8, 16, 32)
    assert [tuple(x.shape[1:]) for x in maps] == [
        (width, 64 // stride, 96 // stride) for width, stride in zip(channels, model.strides, strict=True)
    ]
    assert model.channels == channels
    assert tuple(len(stage) for stage in model.layers[1:]) == convolutions


def test_only_first_blocks_have_a_convolution_in_the_shortcut_and_halving_ones_average_before_it():
    stages = built().layers[1:]

    kinds = [[type(block.shortcut).__name__ for block in stage] for stage in stages]

    assert kinds == [["Conv", "Identity"]] + [["Sequential", "Identity"]] * 3
    assert [type(part).__name__ for part in stages[1][0].shortcut] == ["AvgPool2d", "Conv"]


def test_a_halving_shortcut_is_the_mean_of_four_cells():
    block = Residual(1, 1, 2, narrow=False, first=True, variant="vd").eval()
    with torch.no_grad():
        block.body[1].conv.weight.zero_()
        block.shortcut[1].conv.weight.fill_(2.0)
        found = block(torch.tensor([[[[1.0, 2], [3, 6]]]]))

    assert found.item() == pytest.approx(2 * 3.0, rel=1e-3)  # the norm divides by sqrt(1 + 1e-3)


def test_activation_of_the_plain_variant_is_silu_inside_and_relu_after_the_sum():
    plain, deep = (Residual(4, 2, 1, narrow=True, first=True, variant=variant) for variant in ("plain", "vd"))

    assert [part.act_name for part in plain.body] == ["silu", "silu", "none"]
    assert [part.act_name for part in deep.body] == ["relu", "relu", "none"]
    assert plain(torch.randn(2, 4, 8, 8)).min() == 0


def test_a_frozen_stem_stays_frozen_whatever_is_asked():
    model = built(frozen_stem=True)
    model.requires_grad_()
    for layer in model.layers:
        layer.requires_grad_()

    assert not any(parameter.requires_grad for parameter in model.layers[0].parameters())
    assert all(parameter.requires_grad for parameter in model.layers[1].parameters())
    assert all(parameter.requires_grad for parameter in built().layers[0].parameters())


def test_frozen_norms_keep_their_statistics_in_training():
    model = built(frozen_norm=True).train()
    before = {name: value.clone() for name, value in model.named_buffers()}
    model(torch.rand(2, 3, 64, 64))

    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())
    assert not any(isinstance(part, nn.BatchNorm2d) and list(part.parameters()) for part in model.modules())
