# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""YOLOv8 for every task: numbers only.

Source: spec/architectures 4 (layers, scales), spec/losses E.3 to E.7 (criteria), spec/recipe 1 (training).
"""

from dataclasses import replace

from boxwright.engine.recipe import Recipe
from boxwright.losses.criterion import Criterion
from boxwright.losses.dense_recipes import yolov8_detect
from boxwright.models.backbones.csp import ContextName, CSPConfig
from boxwright.models.detector import DetectorConfig
from boxwright.models.heads.anchor_free import AnchorFreeConfig
from boxwright.models.necks.pan import PANConfig
from boxwright.presets.dense import Asked, dense_head, dense_recipe, family, image_recipe
from boxwright.presets.scaling import Scale
from boxwright.vocabulary import TASK_NAMES

SCALES: dict[str, Scale] = {
    "n": Scale(depth=0.33, width=0.25, widest=1024),
    "s": Scale(depth=0.33, width=0.50, widest=1024),
    "m": Scale(depth=0.67, width=0.75, widest=768),
    "l": Scale(depth=1.00, width=1.00, widest=512),
    "x": Scale(depth=1.00, width=1.25, widest=512),
}
CLASSIFY_WIDEST = 1024


@family("yolov8", SCALES, TASK_NAMES)
def yolov8(size: str, asked: Asked) -> Recipe:
    """The complete recipe of one size and task."""
    scale = SCALES[size]
    if asked.facts.whole_image:
        return image_recipe("yolov8", size, _backbone(replace(scale, widest=CLASSIFY_WIDEST), "none"), asked)
    return dense_recipe(
        "yolov8", size, asked, backbone=_backbone(scale), neck=_neck(scale), head=dense_head(asked, scale)
    )


def yolov8_model(
    size: str = "n", num_classes: int = 80, num_bins: int = 16, *, exclusive: bool = False
) -> DetectorConfig:
    """The detector of one size."""
    scale = SCALES[size]
    head = AnchorFreeConfig(num_classes=num_classes, num_bins=num_bins, exclusive=exclusive)
    return DetectorConfig(backbone=_backbone(scale), neck=_neck(scale), head=head)


def yolov8_criterion() -> Criterion:
    """Of detection, one rule: task-aligned top 10, CIoU, distance bins and soft class scores."""
    return yolov8_detect()


def _backbone(scale: Scale, context: ContextName = "sppf") -> CSPConfig:
    widths = scale.widths(64, 128, 256, 512, 1024)
    return CSPConfig(widths=widths, depths=scale.depths(3, 6, 6, 3), context=context)


def _neck(scale: Scale) -> PANConfig:
    return PANConfig(widths=scale.widths(256, 512, 1024), depth=scale.repeats(3))
