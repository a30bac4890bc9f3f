# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors

import pytest
import torch
from tests.presets.test_yolov5 import labels, step

from boxwright.config import from_yaml, to_yaml
from boxwright.engine.recipe import Recipe
from boxwright.models.backbones.mobilenet import MobileNetV3Config
from boxwright.models.backbones.shufflenet import ShuffleNetV2Config
from boxwright.models.heads.anchor_based import P5_ANCHORS
from boxwright.presets import PRESETS, preset
from boxwright.presets.yolov5_light import LAYOUTS

NAMES = [f"yolov5-{name}" for name in LAYOUTS]


def test_every_layout_is_a_preset():
    assert [name for name in PRESETS if name.startswith("yolov5-")] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_recipes_survive_yaml(name):
    recipe = preset(name, num_classes=3, exclusive=True)

    assert recipe.name == name
    assert from_yaml(Recipe, to_yaml(recipe)) == recipe


@pytest.mark.parametrize(
    ("name", "strides"),
    [
        ("mobilenetv3", (8, 16, 32)),
        ("shufflenetv2", (8, 16, 32)),
        ("mobilenetv3-published", (8, 16, 32)),
        ("mobilenetv3-published-stem", (16, 32, 64)),
        ("shufflenetv2-published", (8, 16, 32)),
        ("shufflenetv2-published-stem", (8, 16, 32)),
        ("shufflenetv2-published-focus", (4, 8, 16)),
    ],
)
def test_strides_are_those_that_the_layers_have(name, strides):
    with torch.device("meta"):
        model = preset(f"yolov5-{name}").model.build()

    assert model.strides == strides
    assert model.head.strides == strides


def test_backbones_of_the_papers_are_the_default_ones():
    mobile, shuffle = preset("yolov5-mobilenetv3").model, preset("yolov5-shufflenetv2").model

    assert (mobile.backbone, shuffle.backbone) == (MobileNetV3Config(), ShuffleNetV2Config())
    assert mobile.neck == shuffle.neck
    assert (mobile.neck.widths, mobile.neck.block, mobile.neck.depth, mobile.neck.lateral) == (
        (64, 128, 256),
        "c3",
        1,
        True,
    )
    assert mobile.head.anchors == shuffle.head.anchors == P5_ANCHORS


def test_the_published_shuffle_variants_have_anchors_of_their_own():
    assert preset("yolov5-shufflenetv2-published").model.head.anchors[0] == ((4.0, 5.0), (8.0, 10.0), (13.0, 16.0))
    assert preset("yolov5-mobilenetv3-published").model.head.anchors == P5_ANCHORS


@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("name", ["yolov5-mobilenetv3", "yolov5-shufflenetv2-published-stem"])
def test_one_step_gives_every_parameter_a_gradient(name, exclusive):
    _, without = step(preset(name, num_classes=3, exclusive=exclusive), labels(3))

    assert without == []
