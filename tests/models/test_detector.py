# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors

import copy

import pytest
import torch
from torch import nn

from boxwright.config import from_yaml, override, to_yaml
from boxwright.errors import ConfigError, ShapeError
from boxwright.models.backbones.csp import CSPConfig
from boxwright.models.detector import Detector, DetectorConfig
from boxwright.models.heads.anchor_free import AnchorFreeConfig
from boxwright.models.necks.pan import PANConfig

SMALL = DetectorConfig(
    backbone=CSPConfig(widths=(4, 8, 8, 16, 16), depths=(1, 1, 1, 1)),
    neck=PANConfig(widths=(8, 16, 16)),
    head=AnchorFreeConfig(num_classes=3),
)


def built(config: DetectorConfig = SMALL, seed: int = 0) -> Detector:
    torch.manual_seed(seed)
    return config.build()


def trained(config: DetectorConfig = SMALL) -> Detector:
    """A detector whose batch norms are no longer at their initial 0 and 1."""
    model = built(config)
    generator = torch.Generator().manual_seed(1)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.1, generator=generator)
            part.running_var.uniform_(0.5, 1.5, generator=generator)
            part.weight.data.normal_(1, 0.1, generator=generator)
            part.bias.data.normal_(0, 0.1, generator=generator)
    return model


def images_of(*size: int, batch: int = 2) -> torch.Tensor:
    return torch.rand(batch, 3, *size, generator=torch.Generator().manual_seed(2))


def test_a_non_square_image():
    final = built()(images_of(64, 96)).final

    cells = 8 * 12 + 4 * 6 + 2 * 3
    assert final.logits.shape == (2, cells, 3)
    assert final.box_raw.shape == (2, cells, 64)
    assert final.image_size == (64, 96)


def test_sides_that_are_not_multiples_of_the_stride():
    with pytest.raises(ShapeError, match=r"multiples of 32, got 65x64 .* letterbox them to 96x64"):
        built()(images_of(65, 64))


def test_properties_follow_the_config():
    model = built()

    assert model.strides == (8, 16, 32)
    assert model.num_classes == 3
    assert model.config is SMALL


def test_config_survives_yaml_and_overrides():
    assert from_yaml(DetectorConfig, to_yaml(SMALL)) == SMALL
    changed = override(SMALL, ["model.head.num_bins=8".removeprefix("model."), "backbone.depths=[1, 2, 1, 1]"])
    assert changed.head.num_bins == 8
    assert changed.backbone.depths == (1, 2, 1, 1)
    with pytest.raises(ConfigError, match=r"backbone\.kind: expected one of csp, .*, got 'vgg'"):
        override(SMALL, ["backbone.kind=vgg"])
    with pytest.raises(ConfigError, match=r"neck\.width: unknown key; did you mean 'widths'"):
        override(SMALL, ["neck.width=[1]"])


def test_every_parameter_but_the_bins_gets_a_gradient_in_one_step():
    model = built()
    final = model(images_of(64, 64)).final
    (final.logits.square().mean() + final.box_raw.square().mean()).backward()

    without = [name for name, value in model.named_parameters() if value.grad is None or not value.grad.abs().sum() > 0]
    assert without == ["head.bins"]


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_folding_keeps_the_outputs_and_the_original(memory_format):
    model = trained().to(memory_format=memory_format)
    state = copy.deepcopy(model.state_dict())
    images = images_of(64, 96).to(memory_format=memory_format)

    folded = model.fold()
    with torch.no_grad():
        before, after = model.eval()(images).final, folded(images).final

    torch.testing.assert_close(after.logits, before.logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(after.box_raw, before.box_raw, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(after.boxes, before.boxes, rtol=1e-4, atol=1e-2)  # px
    assert not any(isinstance(part, nn.BatchNorm2d) for part in folded.modules())
    assert not any(value.requires_grad for value in folded.parameters())
    assert not folded.training
    assert model.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert model.backbone.layers[0].conv.weight.requires_grad


def test_folding_a_training_model_uses_the_running_statistics():
    model = trained().train()
    images = images_of(64, 64)
    with torch.no_grad():
        after = model.fold()(images).final.logits
        before = model.eval()(images).final.logits

    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)


def test_both_memory_formats_give_the_same_outputs_and_gradients():
    images = images_of(64, 64)
    results = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        model = trained().double().to(memory_format=memory_format)
        final = model(images.double().to(memory_format=memory_format)).final
        (final.logits.square().mean() + final.box_raw.square().mean()).backward()
        results.append((final.logits.detach(), final.box_raw.detach(), model.backbone.layers[0].conv.weight.grad))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_bf16_autocast_stays_close_to_fp32():
    model = trained().eval().to(memory_format=torch.channels_last)
    images = images_of(64, 64).to(memory_format=torch.channels_last)
    with torch.no_grad():
        exact = model(images).final
        with torch.autocast("cpu", torch.bfloat16):
            rounded = model(images).final

    assert rounded.logits.dtype == rounded.box_raw.dtype == torch.float32  # the last layer is not rounded
    # 8 bits of mantissa through some 20 layers: a few per cent of the spread
    assert (rounded.logits.float() - exact.logits).abs().max() < 0.05 * exact.logits.std() + 0.05
    assert (rounded.boxes - exact.boxes).abs().max() < 4.0  # px of boxes about 120 px wide


def frozen(model: Detector) -> set[int]:
    """Indices of layers with parameters, none of which is trainable."""
    parts = [(index, list(part.parameters())) for index, part in enumerate(model.layers)]
    return {index for index, values in parts if values and not any(value.requires_grad for value in values)}


def test_freeze_the_first_layers():
    model = built()

    assert model.freeze(3) == (0, 1, 2)
    assert frozen(model) == {0, 1, 2}
    assert model.freeze(0) == ()
    assert frozen(model) == set()
    assert [name for name, value in model.named_parameters() if not value.requires_grad] == ["head.bins"]


def test_freeze_a_list_freezes_exactly_those():
    model = built()

    assert model.freeze((9, 2)) == (2, 9)
    assert frozen(model) == {2, 9}
    trainable = sum(value.requires_grad for value in model.parameters())
    fixed = sum(1 for index in (2, 9) for _ in model.layers[index].parameters())
    assert trainable == len(list(model.parameters())) - fixed - 1


def test_frozen_layers_do_not_move():
    model = built()
    model.freeze(10)
    final = model(images_of(64, 64)).final
    (final.logits.square().mean() + final.box_raw.square().mean()).backward()

    assert all(value.grad is None for value in model.backbone.parameters())
    assert all(value.grad is not None for value in model.neck.parameters())


@pytest.mark.parametrize("bn_eval", [False, True])
def test_statistics_of_frozen_layers_move_unless_held(bn_eval):
    model = built()
    model.freeze([0], bn_eval=bn_eval)
    model.eval().train()
    before = [model.layers[i].bn.running_mean.clone() for i in (0, 1)]

    model(images_of(64, 64))

    moved = [not torch.equal(old, model.layers[i].bn.running_mean) for i, old in zip((0, 1), before, strict=True)]
    assert moved == [not bn_eval, True]


@pytest.mark.parametrize("layers", [24, -1, (23,), (-1,)])
def test_freezing_a_layer_that_does_not_exist(layers):
    with pytest.raises(ConfigError, match=r"train\.freeze: this model has layers 0 to 22"):
        built().freeze(layers)


def test_equal_seeds_build_equal_weights():
    one, other = built(seed=3).state_dict(), built(seed=3).state_dict()
    assert all(torch.equal(value, other[name]) for name, value in one.items())
