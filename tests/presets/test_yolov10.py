# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors

import pytest

from boxwright.errors import ConfigError
from boxwright.losses.dense_recipes import end_to_end_detect
from boxwright.presets.yolov10 import SCALES, yolov10


@pytest.mark.parametrize("size", SCALES)
def test_every_size_has_two_sets_of_branches(size):
    recipe = yolov10(size)

    assert recipe.name == f"yolov10{size}"
    assert (recipe.model.head.end_to_end, recipe.model.head.class_branch) == (True, "light")
    assert recipe.criterion == end_to_end_detect()
    assert recipe.model.backbone.down == ("conv", "conv", "scdown", "scdown")


def test_blocks_of_the_table():
    assert yolov10("n").model.neck.block == ("c2f", "c2f", "c2f", "c2fcib_large")
    assert yolov10("s").model.backbone.block == ("c2f", "c2f", "c2f", "c2fcib_large")
    assert yolov10("m").model.neck.block == ("c2f", "c2f", "c2fcib", "c2fcib")
    assert yolov10("x").model.backbone.block == ("c2f", "c2f", "c2fcib", "c2fcib")


def test_it_detects_only_and_has_six_sizes():
    with pytest.raises(ConfigError, match=r"^yolov10: expected one of the tasks detect, got segment$"):
        yolov10("n", task="segment")
    with pytest.raises(ConfigError, match=r"^yolov10: expected one of the sizes n, s, m, b, l, x, got 'q'$"):
        yolov10("q")
