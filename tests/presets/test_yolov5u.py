# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors

from boxwright.losses.dense_recipes import yolov8_detect
from boxwright.models.heads.anchor_free import AnchorFreeConfig
from boxwright.presets.yolov5u import yolov5u


def test_layers_of_yolov5_with_the_head_of_yolov8():
    recipe = yolov5u("mu")
    model = recipe.model

    assert recipe.name == "yolov5mu"
    assert (model.backbone.block, model.backbone.stem, model.neck.lateral) == ("c3", "conv6", True)
    assert model.backbone.depths == (2, 4, 6, 2)
    assert model.backbone.widths == (48, 96, 192, 384, 768)
    assert model.head == AnchorFreeConfig()
    assert recipe.criterion == yolov8_detect()
