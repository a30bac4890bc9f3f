# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""YOLO11 for every task: numbers only.

Source: spec/architectures 5.2 (layers, scales), spec/losses E.3 to E.7 (criteria), spec/recipe 1 (training).
"""

from boxwright.engine.recipe import Recipe
from boxwright.models.backbones.csp import ContextName, CSPConfig
from boxwright.models.necks.pan import PANConfig
from boxwright.models.stages import BlockName
from boxwright.presets.dense import Asked, dense_head, dense_recipe, family, image_recipe
from boxwright.presets.scaling import Scale
from boxwright.vocabulary import TASK_NAMES

SCALES: dict[str, Scale] = {
    "n": Scale(depth=0.50, width=0.25, widest=1024),
    "s": Scale(depth=0.50, width=0.50, widest=1024),
    "m": Scale(depth=0.50, width=1.00, widest=512),
    "l": Scale(depth=1.00, width=1.00, widest=512),
    "x": Scale(depth=1.00, width=1.50, widest=512),
}
SMALL = ("n", "s")  # the others have a C3k in every unit


@family("yolo11", SCALES, TASK_NAMES)
def yolo11(size: str, asked: Asked) -> Recipe:
    """The complete recipe of one size and task."""
    if asked.facts.whole_image:
        return image_recipe("yolo11", size, yolo11_backbone(size, "none"), asked)
    scale, unit = SCALES[size], _unit(size)
    return dense_recipe(
        "yolo11",
        size,
        asked,
        backbone=yolo11_backbone(size),
        neck=PANConfig(
            block=(unit, unit, unit, "c3k2_c3k"),
            widths=scale.widths(256, 512, 1024),
            depth=scale.repeats(2),
        ),
        head=dense_head(asked, scale, class_branch="light"),
    )


def yolo11_backbone(size: str, context: ContextName = "sppf") -> CSPConfig:
    """The backbone of one size; YOLO26 has it with another context, the classifiers with none."""
    scale, unit = SCALES[size], _unit(size)
    return CSPConfig(
        block=(unit, unit, "c3k2_c3k", "c3k2_c3k"),
        widths=scale.widths(64, 256, 512, 512, 1024),
        depths=scale.depths(2, 2, 2, 2),
        down_widths=scale.widths(128, 256, 512, 1024),
        expand=(0.25, 0.25, 0.5, 0.5),
        context=context,
        attention="c2psa",
        attention_depth=scale.repeats(2),
    )


def _unit(size: str) -> BlockName:
    return "c3k2" if size in SMALL else "c3k2_c3k"
