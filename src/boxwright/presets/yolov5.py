# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""YOLOv5, anchor based: numbers only. P5 (strides 8 to 32), P6 (8 to 64), and the layers of spring 2021 (r5.0).

Source: spec/architectures 3 (layers, scales, anchors), spec/losses E.1 (criterion), spec/recipe 1 and 3 (training).
"""

from typing import Any

from boxwright.datasets.dataset import DataConfig
from boxwright.engine.recipe import Recipe, TrainConfig
from boxwright.evaluation.config import EvaluationConfig
from boxwright.loading.augment.pipeline import AugmentConfig
from boxwright.losses.criterion import Criterion
from boxwright.losses.recipes import yolov5_detect, yolov5_exclusive, yolov5_gains, yolov5_segment
from boxwright.models.backbones import BackboneConfig
from boxwright.models.backbones.csp import CSPConfig
from boxwright.models.detector import DetectorConfig
from boxwright.models.heads.anchor_based import P5_ANCHORS, AnchorBasedConfig, Anchors
from boxwright.models.heads.branches import MaskConfig
from boxwright.models.necks import NeckConfig
from boxwright.models.necks.pan import PANConfig
from boxwright.presets.dense import PROTOTYPE_BASE, Asked, family, with_attributes
from boxwright.presets.scaling import Scale
from boxwright.vocabulary import TaskName

TASKS: tuple[TaskName, ...] = ("detect", "segment")

SCALES: dict[str, Scale] = {
    "n": Scale(depth=0.33, width=0.25),
    "s": Scale(depth=0.33, width=0.50),
    "m": Scale(depth=0.67, width=0.75),
    "l": Scale(depth=1.00, width=1.00),
    "x": Scale(depth=1.33, width=1.25),
}
P6_SCALES = {f"{size}6": scale for size, scale in SCALES.items()}
R5_SCALES = {f"{size}-r5": SCALES[size] for size in "smlx"}
P6_ANCHORS: Anchors = (
    ((19.0, 27.0), (44.0, 40.0), (38.0, 94.0)),
    ((96.0, 68.0), (86.0, 152.0), (180.0, 137.0)),
    ((140.0, 301.0), (303.0, 264.0), (238.0, 542.0)),
    ((436.0, 615.0), (739.0, 380.0), (925.0, 792.0)),
)
SPRING_2021_MARGIN = 0.99  # of the class prior


@family("yolov5", SCALES, TASKS)
def yolov5(size: str, asked: Asked) -> Recipe:
    """The complete recipe of one size at strides 8, 16 and 32."""
    scale = SCALES[size]
    return anchor_recipe(
        f"yolov5{size}",
        asked,
        **p5_layers(scale),
        head=anchor_head(asked, P5_ANCHORS, scale),
    )


@family("yolov5", P6_SCALES, TASKS)
def yolov5_p6(size: str, asked: Asked) -> Recipe:
    """The complete recipe of one size at strides 8, 16, 32 and 64, made for images of 1280 px."""
    scale = P6_SCALES[size]
    return anchor_recipe(
        f"yolov5{size}",
        asked,
        **_layers(scale, (64, 128, 256, 512, 768, 1024), (3, 6, 9, 3, 3), stem="conv6"),
        head=anchor_head(asked, P6_ANCHORS, scale),
        side=1280,
    )


@family("yolov5", R5_SCALES, ("detect",))
def yolov5_r5(size: str, asked: Asked) -> Recipe:
    """The complete recipe of one size of spring 2021: neighbours as channels, parallel pools before the last block."""
    scale = R5_SCALES[size]
    return anchor_recipe(
        f"yolov5{size}",
        asked,
        **_layers(scale, (64, 128, 256, 512, 1024), (3, 9, 9, 3), stem="focus", context="spp", context_first=True),
        head=anchor_head(asked, P5_ANCHORS, scale, class_margin=SPRING_2021_MARGIN),
    )


def p5_layers(scale: Scale) -> dict[str, Any]:
    """Backbone and neck of one size at strides 8, 16 and 32."""
    return _layers(scale, (64, 128, 256, 512, 1024), (3, 6, 9, 3), stem="conv6")


def _layers(scale: Scale, widths: tuple[int, ...], depths: tuple[int, ...], **more: Any) -> dict[str, Any]:
    """Backbone and neck from the table of the largest scale; the neck mixes all maps from stride 8 on."""
    backbone = CSPConfig(block="c3", widths=scale.widths(*widths), depths=scale.depths(*depths), **more)
    neck = PANConfig(block="c3", widths=scale.widths(*widths[2:]), depth=scale.repeats(3), lateral=True)
    return {"backbone": backbone, "neck": neck}


def anchor_head(asked: Asked, anchors: Anchors, scale: Scale, **options: Any) -> AnchorBasedConfig:
    """The head of one size for a task; `options` are further fields of `AnchorBasedConfig`."""
    prototypes = MaskConfig(hidden=scale.channels(PROTOTYPE_BASE), upsample="nearest")
    return AnchorBasedConfig(
        num_classes=asked.classes,
        anchors=anchors,
        exclusive=asked.exclusive,
        masks=prototypes if asked.facts.outlines else None,
        attributes=asked.attributes,
        **options,
    )


def anchor_criterion(head: AnchorBasedConfig, imgsz: int) -> Criterion:
    """The published criterion of a head's task, with gains for its classes and levels at this image side (px)."""
    gains = yolov5_gains(head.num_classes, imgsz, len(head.anchors))
    if head.masks is not None:
        return yolov5_segment(gains=gains, exclusive=head.exclusive)
    return (yolov5_exclusive if head.exclusive else yolov5_detect)(gains=gains)


def anchor_recipe(
    name: str,
    asked: Asked,
    *,
    backbone: BackboneConfig,
    neck: NeckConfig,
    head: AnchorBasedConfig,
    side: int = 640,
) -> Recipe:
    """The complete recipe around a network; `side` (px) is that of the network input where none is asked for."""
    imgsz = asked.imgsz or side
    return Recipe(
        name=f"{name}{asked.facts.suffix}",
        model=DetectorConfig(backbone=backbone, neck=neck, head=head),
        criterion=with_attributes(anchor_criterion(head, imgsz), asked.attributes),
        data=DataConfig(task=asked.task, imgsz=imgsz),
        augment=AugmentConfig(close_mosaic=0),
        train=TrainConfig(optimizer="sgd", lr0=0.01, momentum=0.937, warmup_bias_lr=0.1),
        evaluation=EvaluationConfig(iou=0.6),
    )
