# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors

import pytest
import torch

from boxwright.datasets.dataset import DataConfig
from boxwright.engine.recipe import TrainConfig
from boxwright.evaluation.evaluator import EvaluationConfig
from boxwright.loading.augment.pipeline import AugmentConfig
from boxwright.losses.assign.task_aligned import TaskAligned
from boxwright.presets.yolov8 import yolov8, yolov8_criterion, yolov8_model
from boxwright.structures import Targets


@pytest.mark.parametrize(
    ("size", "widths", "depths", "neck_widths", "neck_depth"),
    [
        ("n", (16, 32, 64, 128, 256), (1, 2, 2, 1), (64, 128, 256), 1),
        ("s", (32, 64, 128, 256, 512), (1, 2, 2, 1), (128, 256, 512), 1),
        ("m", (48, 96, 192, 384, 576), (2, 4, 4, 2), (192, 384, 576), 2),
        ("l", (64, 128, 256, 512, 512), (3, 6, 6, 3), (256, 512, 512), 3),
        ("x", (80, 160, 320, 640, 640), (3, 6, 6, 3), (320, 640, 640), 3),
    ],
)
def test_sizes(size, widths, depths, neck_widths, neck_depth):
    model = yolov8_model(size)

    assert (model.backbone.widths, model.backbone.depths) == (widths, depths)
    assert (model.neck.widths, model.neck.depth) == (neck_widths, neck_depth)
    assert model.head.num_bins == 16


def test_no_width_depends_on_the_class_count():
    """The published code leaves a layer unscaled whose base width equals the class count, for example 64; we do not."""
    assert yolov8_model("n", num_classes=64).backbone.widths == yolov8_model("n").backbone.widths


def test_criterion_has_the_published_numbers():
    rule = yolov8_criterion().rules["main"]

    assert rule.assigner == TaskAligned(topk=10, alpha=0.5, beta=6.0)
    assert {name: weighted.gain for name, weighted in rule.terms.items()} == {"box": 7.5, "cls": 0.5, "dfl": 1.5}


def test_the_rest_of_the_recipe_is_the_default_of_each_room():
    recipe = yolov8("s", num_classes=3)

    assert (recipe.data, recipe.augment) == (DataConfig(), AugmentConfig())
    assert (recipe.train, recipe.evaluation) == (TrainConfig(), EvaluationConfig())


def test_published_augmentation_and_training_defaults():
    recipe = yolov8()
    augment = recipe.augment

    assert (augment.hsv_h, augment.hsv_s, augment.hsv_v) == (0.015, 0.7, 0.4)
    assert (augment.degrees, augment.translate, augment.scale, augment.shear, augment.perspective) == (
        0,
        0.1,
        0.5,
        0,
        0,
    )
    assert (augment.flipud, augment.fliplr, augment.mosaic, augment.mixup, augment.close_mosaic) == (0, 0.5, 1, 0, 10)
    assert (recipe.train.epochs, recipe.train.batch, recipe.data.imgsz) == (100, 16, 640)


def test_one_step_gives_every_parameter_a_gradient():
    torch.manual_seed(0)
    recipe = yolov8("n", num_classes=3)
    model = recipe.model.build()
    targets = Targets(
        labels=torch.tensor([[0, 2], [1, 0]]),
        boxes=torch.tensor([[[4.0, 4, 40, 50], [20, 10, 90, 90]], [[30, 30, 60, 64], [0, 0, 0, 0]]]),
        valid=torch.tensor([[True, True], [True, False]]),
    )
    outputs = model(torch.rand(2, 3, 96, 96))
    loss = recipe.criterion(outputs, recipe.criterion.prepare(targets, outputs.final.grid))
    loss.total.backward()

    # DFL and CIoU reach the box branch through matched cells only, so a level without a match would show here.
    without = [name for name, value in model.named_parameters() if value.grad is None]
    assert without == ["head.bins"]
    assert list(loss.components) == ["main/box", "main/cls", "main/dfl"]
