# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""YOLOv5u detect, the layers of YOLOv5 with the anchor-free head of YOLOv8: numbers only.

Source: spec/architectures 3.2 and 5.4 (layers, scales), spec/losses E.3 (criterion).
"""

from boxwright.engine.recipe import Recipe
from boxwright.models.backbones.csp import CSPConfig
from boxwright.models.necks.pan import PANConfig
from boxwright.presets.dense import Asked, dense_head, dense_recipe, family
from boxwright.presets.scaling import Scale

SCALES: dict[str, Scale] = {
    "nu": Scale(depth=0.33, width=0.25),
    "su": Scale(depth=0.33, width=0.50),
    "mu": Scale(depth=0.67, width=0.75),
    "lu": Scale(depth=1.00, width=1.00),
    "xu": Scale(depth=1.33, width=1.25),
}


@family("yolov5u", SCALES, ("detect",))
def yolov5u(size: str, asked: Asked) -> Recipe:
    """The complete recipe of one size."""
    scale = SCALES[size]
    return dense_recipe(
        "yolov5",
        size,
        asked,
        backbone=CSPConfig(
            block="c3",
            stem="conv6",
            widths=scale.widths(64, 128, 256, 512, 1024),
            depths=scale.depths(3, 6, 9, 3),
        ),
        neck=PANConfig(block="c3", widths=scale.widths(256, 512, 1024), depth=scale.repeats(3), lateral=True),
        head=dense_head(asked, scale),
    )
