# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors

import subprocess
import sys

import pytest

from boxwright.config import from_yaml, override, to_yaml
from boxwright.engine.recipe import Recipe
from boxwright.errors import ConfigError
from boxwright.presets import PRESETS, preset


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_named_after_itself_and_survives_yaml(name):
    recipe = preset(name, num_classes=7)

    assert recipe.name == name
    assert recipe.num_classes == 7
    assert from_yaml(Recipe, to_yaml(recipe)) == recipe


def test_settings_reach_every_part():
    recipe = override(
        preset("yolov8n"),
        ["model.backbone.depths=[1, 1, 1, 1]", "criterion.rules.main.terms.box.gain=5", "train.epochs=3"],
    )

    assert recipe.model.backbone.depths == (1, 1, 1, 1)
    assert recipe.criterion.rules["main"].terms["box"].gain == 5
    assert recipe.train.epochs == 3


@pytest.mark.parametrize(
    ("name", "hint"),
    [("yolov8", "did you mean"), ("YOLOV8N", "did you mean yolov8n"), ("resnet", "known presets: yolov8n")],
)
def test_unknown_names(name, hint):
    with pytest.raises(ConfigError, match=f"^{name}: unknown preset; {hint}"):
        preset(name)


def test_names_are_known_without_torch():
    code = "import sys; from boxwright.presets import PRESETS; print(*PRESETS); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    names, torch_is_loaded = done.stdout.split("\n")[:2]
    assert names.split()[:5] == ["yolov8n", "yolov8s", "yolov8m", "yolov8l", "yolov8x"]
    assert names.split() == list(PRESETS)
    assert torch_is_loaded == "False"
