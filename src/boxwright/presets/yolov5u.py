# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""YOLOv5u detect, the layers of YOLOv5 with the anchor-free head of YOLOv8: numbers only.

Source: spec/architectures 3.2 and 5.4 (layers, scales), spec/losses E.3 (criterion).
"""

from boxwright.engine.recipe import Recipe
from boxwright.presets import yolov5
from boxwright.presets.dense import Asked, dense_head, dense_recipe, family

SCALES = {f"{size}u": scale for size, scale in yolov5.SCALES.items()}


@family("yolov5u", SCALES, ("detect",))
def yolov5u(size: str, asked: Asked) -> Recipe:
    """The complete recipe of one size."""
    scale = SCALES[size]
    return dense_recipe(
        "yolov5",
        size,
        asked,
        **yolov5.p5_layers(scale),
        head=dense_head(asked, scale),
    )
