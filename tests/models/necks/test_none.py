# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors

import pytest
import torch

from boxwright.errors import ConfigError
from boxwright.models.necks.none import NoNeckConfig


@pytest.mark.parametrize(("levels", "first"), [(None, 0), (2, 1), (3, 0)])
def test_the_last_maps_pass_as_they_are(levels, first):
    neck = NoNeckConfig(levels=levels).build((4, 8, 12), (8, 16, 32))
    maps = tuple(torch.zeros(1, width, 2, 2) for width in (4, 8, 12))

    assert neck.channels == (4, 8, 12)[first:]
    assert neck.strides == (8, 16, 32)[first:]
    assert all(found is given for found, given in zip(neck(maps), maps[first:], strict=True))
    assert neck.layers == ()


def test_more_levels_than_there_are():
    with pytest.raises(ConfigError, match=r"^neck\.levels: expected 1 to 2, got 3$"):
        NoNeckConfig(levels=3).build((4, 8), (8, 16))
