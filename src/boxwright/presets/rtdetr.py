# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""RT-DETR: the original networks (r18 to r101) and those of the v8-style code base (l, x, resnet50, resnet101).

Source: RT-DETR, Zhao et al. 2023, arXiv:2304.08069; spec/architectures 6.7 and 9.8 (networks), spec/losses E.9 and F.9
(criterion, denoising), spec/recipe 6 (training).
Deviation: norms and stem of r50, r50m and r101 learn, unless `model.backbone.frozen_norm` and `frozen_stem` are set.
The published recipe freezes them because its backbones come trained; a fresh one without norms would not learn.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from boxwright.datasets.dataset import DataConfig
from boxwright.engine.recipe import Recipe, TrainConfig
from boxwright.errors import ConfigError
from boxwright.loading.augment.pipeline import AugmentConfig
from boxwright.losses.criterion import Criterion
from boxwright.losses.query_recipes import RTDETR_GAINS
from boxwright.losses.query_recipes import rtdetr as rtdetr_criterion
from boxwright.losses.terms.attributes import Attribute
from boxwright.models.backbones import BackboneConfig
from boxwright.models.backbones.hgnet import HGNetConfig
from boxwright.models.backbones.resnet import ResNetConfig
from boxwright.models.detector import DetectorConfig
from boxwright.models.heads.query import QueryConfig
from boxwright.models.necks.hybrid import HybridConfig
from boxwright.models.norms import NormName
from boxwright.presets.dense import Asked, family
from boxwright.vocabulary import AttributeSpec

BACKBONE_LR = 0.1  # 1e-5 of 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """What differs between the sizes."""

    backbone: BackboneConfig
    expand: float = 1.0  # of the neck's blocks
    neck_width: int = 256
    neck_hidden: int = 1024
    layers: int = 6  # of the decoder
    evaluated: int | None = None
    original: bool = True  # norms and embedding as in the original code, and not in the v8-style one
    backbone_lr: float = BACKBONE_LR


NETWORKS: dict[str, Variant] = {
    "r18": Variant(backbone=ResNetConfig(depth=18), expand=0.5, layers=3),
    "r34": Variant(backbone=ResNetConfig(depth=34), expand=0.5, layers=4),
    "r50m": Variant(backbone=ResNetConfig(depth=50), expand=0.5, evaluated=3),
    "r50": Variant(backbone=ResNetConfig(depth=50)),
    "r101": Variant(backbone=ResNetConfig(depth=101), neck_width=384, neck_hidden=2048, backbone_lr=0.01),
    "l": Variant(backbone=HGNetConfig(), original=False),
    "x": Variant(
        backbone=HGNetConfig(stem=(32, 64), hidden=(64, 128, 256, 512), blocks=(1, 2, 5, 2)),
        neck_width=384,
        neck_hidden=2048,
        original=False,
    ),
    "resnet50": Variant(backbone=ResNetConfig(depth=50, variant="plain", norm="yolo"), original=False),
    "resnet101": Variant(backbone=ResNetConfig(depth=101, variant="plain", norm="yolo"), original=False),
}


@family("rtdetr", NETWORKS, ("detect",))
def rtdetr(size: str, asked: Asked) -> Recipe:
    """The complete recipe of one size."""
    if asked.exclusive:
        raise ConfigError(
            "rtdetr: its class loss scores every class apart, and the dataset says that classes exclude one another; "
            "train with data.exclusive=false, or choose yolov5 or yolov8"
        )
    return Recipe(
        name=f"rtdetr-{size}",
        model=rtdetr_model(size, asked.classes, attributes=asked.attributes),
        criterion=_criterion(asked.attributes),
        data=DataConfig(imgsz=asked.imgsz or 640, fit="stretch"),
        augment=AugmentConfig(scale=0.25, mosaic=0.0, close_mosaic=0),
        train=TrainConfig(
            epochs=72,
            batch=16,
            nominal_batch=16,
            optimizer="adamw",
            lr0=1e-4,
            backbone_lr=NETWORKS[size].backbone_lr,
            lrf=1.0,
            momentum=0.9,
            weight_decay=1e-4,
            warmup_epochs=1.0,
            warmup_bias_lr=0.0,
            clip_norm=0.1,
            ema_decay=0.9999,
            ema_warmup=2000.0,
        ),
    )


def rtdetr_model(size: str, num_classes: int = 80, *, attributes: Sequence[AttributeSpec] = ()) -> DetectorConfig:
    """The network of one size."""
    of = NETWORKS[size]
    norm: NormName = "torch" if of.original else "yolo"
    return DetectorConfig(
        backbone=of.backbone,
        neck=HybridConfig(width=of.neck_width, hidden=of.neck_hidden, expand=of.expand, norm=norm),
        head=QueryConfig(
            num_classes=num_classes,
            layers=of.layers,
            evaluated=of.evaluated,
            padding_row=of.original,
            attributes=tuple(attributes),
            norm=norm,
        ),
    )


def _criterion(attributes: Sequence[AttributeSpec]) -> Criterion:
    """The criterion with the recommended constant weights of its varifocal background (spec/losses H.17).

    Raises:
        ConfigError: an attribute is called as one of its terms.
    """
    for spec in attributes:
        if spec.name in RTDETR_GAINS:
            raise ConfigError(f"attributes.{spec.name}: the loss has a term of this name; rename it")
    return rtdetr_criterion(detach_weight=True, attributes=[Attribute(name=spec.name) for spec in attributes])
