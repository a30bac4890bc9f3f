# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors

import pytest
import torch

from boxwright.config import from_dict
from boxwright.errors import ConfigError
from boxwright.models.backbones.csp import CSPConfig


def test_maps_have_the_channels_and_strides_it_promises():
    backbone = CSPConfig(widths=(4, 6, 8, 10), depths=(1, 0, 2)).build()
    maps = backbone(torch.zeros(2, 3, 32, 48))

    assert backbone.channels == (6, 8, 10)
    assert backbone.strides == (4, 8, 16)
    assert [tuple(x.shape) for x in maps] == [(2, 6, 8, 12), (2, 8, 4, 6), (2, 10, 2, 3)]


def test_depths_are_the_repeats_of_each_stage():
    backbone = CSPConfig(widths=(4, 6, 8, 10), depths=(1, 0, 2)).build()

    assert [len(block.units) for block in backbone.layers[2:7:2]] == [1, 0, 2]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"widths": [16, 32], "depths": [1, 2]}, "backbone.widths: expected one width for the stem and one per depth"),
        ({"widths": [16, 0], "depths": [1]}, "widths must be positive"),
        ({"block": "c9"}, "block: expected 'c2f'"),
    ],
)
def test_wrong_numbers_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        from_dict(CSPConfig, values)
