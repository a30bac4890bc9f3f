# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""YOLOv8 detect: numbers only.

Source: spec/architectures 4 (layers, scales), spec/losses E.3 (criterion), spec/recipe 1 (training).
"""

import math
from collections.abc import Sequence
from typing import Literal

from boxwright.data.augment.pipeline import AugmentConfig
from boxwright.data.dataset import DataConfig
from boxwright.engine.recipe import Recipe
from boxwright.losses.criterion import Criterion
from boxwright.losses.dense_recipes import yolov8_detect
from boxwright.models.backbones.csp import CSPConfig
from boxwright.models.detector import DetectorConfig
from boxwright.models.heads.anchor_free import AnchorFreeConfig
from boxwright.models.necks.pan import PANConfig
from boxwright.vocabulary import AttributeSpec, KeypointSpec, TaskName

Size = Literal["n", "s", "m", "l", "x"]

# depth factor, width factor, widest base width before scaling
SCALES: dict[Size, tuple[float, float, int]] = {
    "n": (0.33, 0.25, 1024),
    "s": (0.33, 0.50, 1024),
    "m": (0.67, 0.75, 768),
    "l": (1.00, 1.00, 512),
    "x": (1.00, 1.25, 512),
}


def yolov8(
    size: Size = "n",
    num_classes: int | None = None,
    *,
    task: TaskName = "detect",
    exclusive: bool = False,
    keypoints: KeypointSpec | None = None,
    attributes: Sequence[AttributeSpec] = (),
    imgsz: int | None = None,
) -> Recipe:
    """The complete recipe of one size; the arguments are those of `presets.preset`."""
    return Recipe(
        name=f"yolov8{size}",
        model=yolov8_model(size, 80 if num_classes is None else num_classes, exclusive=exclusive),
        criterion=yolov8_criterion(),
        data=DataConfig(task=task, imgsz=imgsz or 640),
        augment=AugmentConfig(),
    )


def yolov8_model(
    size: Size = "n", num_classes: int = 80, num_bins: int = 16, *, exclusive: bool = False
) -> DetectorConfig:
    """The network of one size."""
    depth, width, widest = SCALES[size]

    def channels(*bases: int) -> tuple[int, ...]:
        return tuple(8 * math.ceil(min(base, widest) * width / 8) for base in bases)

    def repeats(base: int) -> int:
        return max(round(base * depth), 1)

    return DetectorConfig(
        backbone=CSPConfig(widths=channels(64, 128, 256, 512, 1024), depths=tuple(map(repeats, (3, 6, 6, 3)))),
        neck=PANConfig(widths=channels(256, 512, 1024), depth=repeats(3)),
        head=AnchorFreeConfig(num_classes=num_classes, num_bins=num_bins, exclusive=exclusive),
    )


def yolov8_criterion() -> Criterion:
    """One rule: task-aligned top 10, CIoU, distance bins and soft class scores."""
    return yolov8_detect()
