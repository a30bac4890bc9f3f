# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors

import pytest

from boxwright.errors import ConfigError
from boxwright.losses.dense_recipes import end_to_end_progressive
from boxwright.losses.terms.box import DistanceL1
from boxwright.presets.yolo26 import yolo26


def test_no_bins_two_sets_and_a_criterion_that_fades():
    recipe = yolo26("n", 3)
    head = recipe.model.head

    assert (head.num_bins, head.end_to_end, head.box_bias, head.num_classes) == (1, True, 2.0, 3)
    assert recipe.criterion == end_to_end_progressive(num_bins=1)
    assert isinstance(recipe.criterion.rules["one2one"].terms["dfl"].term, DistanceL1)


def test_layers_that_differ_from_yolo11():
    model = yolo26("l").model

    assert model.backbone.context == "sppf_residual"
    assert model.neck.block == ("c3k2_c3k", "c3k2_c3k", "c3k2_c3k", "c3k2_attention")
    assert model.neck.depth == (2, 2, 2, 1)


def test_other_tasks_are_refused():
    with pytest.raises(ConfigError, match=r"^yolo26: expected one of the tasks detect, got pose$"):
        yolo26("n", task="pose")
