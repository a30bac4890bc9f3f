# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import dataclasses

import pytest
import torch
from tests.losses.scenes import generator, random_predictions, random_targets

from boxwright.config import from_yaml, to_yaml
from boxwright.errors import ConfigError
from boxwright.losses import Criterion, Linear, Outputs
from boxwright.losses.dense_recipes import (
    end_to_end_detect,
    end_to_end_progressive,
    yolov8_detect,
    yolov8_oriented,
    yolov8_pose,
    yolov8_segment,
)
from boxwright.losses.terms import DistanceBins, DistanceL1
from boxwright.presets.yolov8 import yolov8_criterion

EVERY = (yolov8_detect, yolov8_segment, yolov8_pose, yolov8_oriented, end_to_end_detect)


def test_detection_is_what_the_preset_trains_with():
    assert yolov8_detect() == yolov8_criterion()


@pytest.mark.parametrize("build", EVERY)
def test_survives_yaml(build):
    assert from_yaml(Criterion, to_yaml(build())) == build()


@pytest.mark.parametrize("build", EVERY)
def test_gains_are_those_that_are_given(build):
    for rule in build(gains={"box": 3.0}).rules.values():
        assert rule.terms["box"].gain == 3.0
        assert rule.terms["cls"].gain == 0.5


def test_published_gains():
    gains = {name: part.gain for build in EVERY for name, part in next(iter(build().rules.values())).terms.items()}

    assert gains == {"box": 7.5, "cls": 0.5, "dfl": 1.5, "seg": 7.5, "pose": 12.0, "kobj": 1.0}


def test_the_progressive_end_to_end_loss_fades_from_many_to_one():
    preds, targets = random_predictions(generator(0), 2), random_targets(generator(0), (4, 3))
    outputs = Outputs(dataclasses.replace(preds, role="one2one"), (dataclasses.replace(preds, role="one2many"),))
    plain = end_to_end_detect(topk2=1)(outputs, targets).components
    fading = end_to_end_detect(one2many=Linear(start=0.8, end=0.1), one2one=Linear(start=0.2, end=0.9), topk2=1)

    for progress, many in ((0.0, 0.8), (1.0, 0.1)):
        found = fading(outputs, targets, progress).components
        for name, value in found.items():
            share = many if name.startswith("one2many") else 1 - many
            assert torch.allclose(value, plain[name] * share)


@pytest.mark.parametrize("build", EVERY)
def test_a_gain_of_no_term_is_refused(build):
    with pytest.raises(ConfigError, match=r"gains.boxx: no such term; did you mean 'box'"):
        build(gains={"boxx": 1.0})


@pytest.mark.parametrize("build", EVERY)
def test_modern_widens_small_boxes_and_gives_one_bin_a_distance_term(build):
    for bins, term in ((16, DistanceBins()), (1, DistanceL1())):
        for rule in build(modern=True, num_bins=bins).rules.values():
            assert rule.assigner.min_side == "second_stride"
            assert rule.terms["dfl"].term == term
    for rule in build(num_bins=1).rules.values():
        assert rule.assigner.min_side == 0
        assert rule.terms["dfl"].term == DistanceBins()


@pytest.mark.parametrize(
    ("build", "flag", "names"),
    [
        (yolov8_segment, {"semantic": True}, {"box", "seg", "cls", "dfl", "sem"}),
        (yolov8_pose, {"likelihood": True}, {"box", "pose", "kobj", "rle", "cls", "dfl"}),
        (yolov8_oriented, {"modern": True}, {"box", "cls", "dfl", "angle"}),
    ],
)
def test_newer_heads_bring_terms_of_their_own(build, flag, names):
    assert set(build(**flag).rules["main"].terms) == names


def test_the_progressive_recipe_is_the_published_one():
    rules = end_to_end_progressive().rules

    assert [rules["one2many"].scale.at(x) for x in (0.0, 0.5, 1.0)] == pytest.approx([0.8, 0.45, 0.1])
    assert [rules["one2one"].scale.at(x) for x in (0.0, 0.5, 1.0)] == pytest.approx([0.2, 0.55, 0.9])
    assert (rules["one2one"].assigner.topk, rules["one2one"].assigner.topk2) == (7, 1)
    assert (rules["one2many"].assigner.topk, rules["one2many"].assigner.topk2) == (10, None)
