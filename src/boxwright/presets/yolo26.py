# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""YOLO26 detect, end to end and without bins: numbers only.

Source: spec/architectures 5.3 (layers), spec/losses F.4 (criterion).
"""

from boxwright.engine.recipe import Recipe
from boxwright.losses.dense_recipes import end_to_end_progressive
from boxwright.models.necks.pan import PANConfig
from boxwright.presets.dense import Asked, dense_head, dense_recipe, family
from boxwright.presets.yolo11 import SCALES, yolo11_backbone

BOX_BIAS = 2.0  # strides, the first distance to each side


@family("yolo26", SCALES, ("detect",))
def yolo26(size: str, asked: Asked) -> Recipe:
    """The complete recipe of one size."""
    scale = SCALES[size]
    depth = scale.repeats(2)
    return dense_recipe(
        "yolo26",
        size,
        asked,
        backbone=yolo11_backbone(size, "sppf_residual"),
        neck=PANConfig(
            block=("c3k2_c3k", "c3k2_c3k", "c3k2_c3k", "c3k2_attention"),
            widths=scale.widths(256, 512, 1024),
            depth=(depth, depth, depth, 1),
        ),
        head=dense_head(asked, scale, class_branch="light", end_to_end=True, num_bins=1, box_bias=BOX_BIAS),
        criterion=end_to_end_progressive(num_bins=1),
    )
