# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""YOLOv5 heads and necks on light backbones: numbers only.

`mobilenetv3` and `shufflenetv2` join the networks of the papers to a YOLOv5 neck; names with `published` are the layer
tables of light YOLOv5 variants as published, with whatever strides these have.

Source: spec/architectures 2.1, 3.3 and 3.6.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from boxwright.engine.recipe import Recipe
from boxwright.models.backbones import BackboneConfig
from boxwright.models.backbones.mobilenet import MobileNetV3Config
from boxwright.models.backbones.shufflenet import ShuffleNetV2Config
from boxwright.models.heads.anchor_based import P5_ANCHORS, Anchors
from boxwright.models.necks.pan import PANConfig
from boxwright.presets.dense import Asked, family
from boxwright.presets.scaling import Scale
from boxwright.presets.yolov5 import SPRING_2021_MARGIN, anchor_head, anchor_recipe

AS_IT_IS = Scale(depth=1.0, width=1.0)  # the tables below say the scaled widths
SHUFFLE_ANCHORS: Anchors = (
    ((4.0, 5.0), (8.0, 10.0), (13.0, 16.0)),
    ((23.0, 29.0), (43.0, 55.0), (73.0, 105.0)),
    ((146.0, 217.0), (231.0, 300.0), (335.0, 433.0)),
)


@dataclass(frozen=True, slots=True)
class Layout:
    """What makes one light variant."""

    backbone: BackboneConfig
    widths: tuple[int, ...]  # of the neck's maps, fine to coarse
    anchors: Anchors = P5_ANCHORS


def _shuffle(entry: Any, width: int) -> Layout:
    """The published layout around ShuffleNetV2 units, with one of its stems."""
    backbone = ShuffleNetV2Config(entry=entry, entry_width=width, stage_widths=(64, 128, 256), stage_units=(4, 8, 4))
    return Layout(backbone, (64, 64, 64), SHUFFLE_ANCHORS)


LAYOUTS: Mapping[str, Layout] = {
    "mobilenetv3": Layout(MobileNetV3Config(), (64, 128, 256)),
    "shufflenetv2": Layout(ShuffleNetV2Config(), (64, 128, 256)),
    "mobilenetv3-published": Layout(MobileNetV3Config(squeeze="truncated"), (128, 256, 512)),
    "mobilenetv3-published-stem": Layout(
        MobileNetV3Config(squeeze="truncated", entry="pelee", width=0.5), (64, 128, 256)
    ),
    "shufflenetv2-published": _shuffle("paper", 8),
    "shufflenetv2-published-stem": _shuffle("pelee", 16),
    "shufflenetv2-published-focus": _shuffle("focus", 32),
}


@family("yolov5-", LAYOUTS, ("detect",))
def yolov5_light(size: str, asked: Asked) -> Recipe:
    """The complete recipe of one of `LAYOUTS`."""
    layout = LAYOUTS[size]
    margin = {"class_margin": SPRING_2021_MARGIN} if "published" in size else {}
    return anchor_recipe(
        f"yolov5-{size}",
        asked,
        backbone=layout.backbone,
        neck=PANConfig(block="c3", widths=layout.widths, depth=1, lateral=True),
        head=anchor_head(asked, layout.anchors, AS_IT_IS, **margin),
    )
