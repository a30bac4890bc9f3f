# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors

import pytest
import torch
from torch import nn

from boxwright.models.blocks import Conv, fold_
from boxwright.models.norms import FrozenBatchNorm, set_norms


def test_a_frozen_norm_neither_learns_nor_follows_the_data():
    norm = FrozenBatchNorm(2, eps=0.0).train()
    norm.running_mean.copy_(torch.tensor([1.0, 2.0]))
    norm.running_var.copy_(torch.tensor([4.0, 9.0]))
    norm.weight.copy_(torch.tensor([2.0, 3.0]))
    norm.bias.copy_(torch.tensor([0.5, -1.0]))
    before = {name: value.clone() for name, value in norm.state_dict().items()}

    found = norm(torch.tensor([5.0, 5.0]).view(1, 2, 1, 1))

    assert found.flatten().tolist() == [(5 - 1) / 2 * 2 + 0.5, (5 - 2) / 3 * 3 - 1]
    assert list(norm.parameters()) == []
    assert sorted(before) == ["bias", "running_mean", "running_var", "weight"]
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())


@pytest.mark.parametrize(("norm", "numbers"), [("torch", (1e-5, 0.1)), ("yolo", (1e-3, 0.03))])
def test_numbers_of_both_habits(norm, numbers):
    model = nn.Sequential(Conv(3, 4), nn.BatchNorm2d(4))
    set_norms(model, norm)

    assert {(part.eps, part.momentum) for part in model.modules() if isinstance(part, nn.BatchNorm2d)} == {numbers}


def test_frozen_norms_fold_like_others():
    torch.manual_seed(0)
    model = nn.Sequential(Conv(3, 4, 3), Conv(4, 2))
    set_norms(model, "torch", frozen=True)
    for name, value in model.named_buffers():
        value.uniform_(0.5, 1.5) if name.endswith("var") else value.normal_()
    x = torch.randn(1, 3, 5, 5)

    with torch.no_grad():
        expected = model.train()(x)
        fold_(model)
        found = model(x)

    assert all(isinstance(part.bn, nn.Identity) for part in model)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
