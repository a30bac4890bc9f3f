# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The training settings: ranges, and the YAML of a whole recipe."""

import pytest

from boxwright.config import from_yaml, override, to_yaml
from boxwright.engine.recipe import Recipe, TrainConfig
from boxwright.errors import ConfigError
from boxwright.presets import preset


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "train.epochs: expected a number at least 1, got 0"),
        ({"batch": -1}, "train.batch: expected a number at least 1, got -1"),
        ({"momentum": 1.5}, "train.momentum: expected a number from 0 to 0.9999, got 1.5"),
        ({"lr0": float("nan")}, "train.lr0: expected a number at least 0, got nan"),
    ],
)
def test_values_out_of_range_are_refused_by_path(changes, message):
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**changes)


def test_ranges_also_hold_for_overrides():
    with pytest.raises(ConfigError, match=r"train\.val_every: expected a number at least 1, got 0"):
        override(preset("yolov8n"), ["train.val_every=0"])


def test_a_recipe_survives_yaml():
    recipe = override(preset("yolov8s", num_classes=3), ["train.freeze=[0, 2]", "train.lr0=1e-3", "train.workers=null"])

    assert from_yaml(Recipe, to_yaml(recipe)) == recipe
    assert recipe.train.freeze == (0, 2)
