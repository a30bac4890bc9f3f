# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors

import pytest
import torch

from boxwright.config import from_yaml, to_yaml
from boxwright.errors import ConfigError
from boxwright.models.backbones.csp import CSPConfig
from boxwright.models.classifier import ClassifierConfig

SMALL = ClassifierConfig(backbone=CSPConfig(widths=(4, 8, 16), depths=(1, 1), context="none"), num_classes=5, hidden=12)


def images() -> torch.Tensor:
    return torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))


def test_logits_are_linear_in_the_mean_over_cells():
    torch.manual_seed(0)
    model = SMALL.build().eval()
    with torch.no_grad():
        coarse = model.backbone(images())[-1]
        expected = model.head.linear(model.head.conv(coarse).flatten(2).mean(2))
        found = model(images())
        folded = model.fold()(images())

    torch.testing.assert_close(found.logits, expected)
    torch.testing.assert_close(folded.logits, expected, rtol=1e-4, atol=1e-5)


def test_properties_and_yaml():
    model = SMALL.build()

    assert (model.num_classes, model.strides, model.grid((32, 32))) == (5, (1,), None)
    assert [model.state_dict()[name].shape[0] for name in model.class_rows] == [5, 5]
    assert model.layers[-1] is model.head
    assert model.freeze(2) == (0, 1)
    assert from_yaml(ClassifierConfig, to_yaml(SMALL)) == SMALL


def test_no_classes_are_refused():
    with pytest.raises(ConfigError, match=r"model\.num_classes: expected at least 1, got 0"):
        ClassifierConfig(num_classes=0)
