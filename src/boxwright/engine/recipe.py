# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""A Recipe is one run as a plain tree of configs: what `boxwright recipe` prints and every run folder keeps."""

import math
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from boxwright.config import component
from boxwright.datasets.dataset import DataConfig
from boxwright.errors import ConfigError
from boxwright.evaluation.evaluator import EvaluationConfig
from boxwright.loading.augment.pipeline import AugmentConfig
from boxwright.losses.criterion import Criterion
from boxwright.losses.image_level import ImageCriterion
from boxwright.models.classifier import ClassifierConfig
from boxwright.models.detector import DetectorConfig
from boxwright.vocabulary import Vocabulary

OptimizerName = Literal["auto", "sgd", "adam", "adamw", "adamax", "nadam", "radam", "rmsprop"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]

_INF = math.inf
_RANGES: dict[str, tuple[float, float]] = {
    "epochs": (1, _INF),
    "batch": (1, _INF),
    "nominal_batch": (1, _INF),
    "lr0": (0, _INF),
    "backbone_lr": (0, _INF),
    "lrf": (0, _INF),
    "momentum": (0, 0.9999),
    "weight_decay": (0, _INF),
    "warmup_epochs": (0, _INF),
    "warmup_floor": (0, _INF),
    "warmup_momentum": (0, 0.9999),
    "warmup_bias_lr": (0, _INF),
    "clip_norm": (0, _INF),
    "ema_decay": (0, 1),
    "ema_warmup": (0, _INF),
    "patience": (0, _INF),
    "seed": (0, 2**63 - 1),
    "workers": (0, _INF),
    "val_every": (1, _INF),
    "save_every": (0, _INF),
}


@component
class TrainConfig:
    """How the weights are found. `None` means: the optimizer rule chooses; a value set here is never overridden.

    Source: spec/recipe 1, 2 and 8.
    """

    epochs: int = 100
    batch: int = 16  # images per step over all ranks
    nominal_batch: int = 64  # gradients are summed until this many images were seen
    optimizer: OptimizerName = "auto"
    lr0: float | None = None
    backbone_lr: float = 1.0  # factor on the learning rate of the backbone, which often comes trained
    lrf: float = 0.01  # final learning rate as a fraction of lr0
    schedule: Literal["linear", "cosine"] = "linear"
    momentum: float | None = None  # SGD momentum or Adam beta1
    weight_decay: float = 5e-4
    warmup_epochs: float = 3.0
    warmup_floor: int = 100  # iterations; a shorter warm-up is stretched to this, up to half of the run
    warmup_momentum: float = 0.8
    warmup_bias_lr: float | None = None
    clip_norm: float = 10.0  # of all gradients together; 0 never clips
    ema_decay: float = 0.9999
    ema_warmup: float = 2000.0  # updates
    patience: int = 100  # epochs without a better fitness; 0 never stops early
    seed: int = 0
    deterministic: bool = True
    precision: Precision = "auto"
    channels_last: bool = True
    multi_scale: bool = False
    autoanchor: bool = True  # replace anchors that do not reach the labels by fitted ones, for heads that have anchors
    freeze: int | tuple[int, ...] = 0  # first N layers, or exactly these
    frozen_bn_eval: bool = False  # keep the batch statistics of frozen layers fixed
    workers: int | None = None  # loader processes per rank; None chooses by the machine
    device: str = "auto"
    val_every: int = 1  # epochs
    save_every: int = 0  # extra numbered checkpoints every N epochs; 0 none

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                wanted = f"from {low:g} to {high:g}" if math.isfinite(high) else f"at least {low:g}"
                raise ConfigError(f"train.{name}: expected a number {wanted}, got {value}")


ModelConfig = Annotated[DetectorConfig | ClassifierConfig, Field(discriminator="kind")]
AnyCriterion = Annotated[Criterion | ImageCriterion, Field(discriminator="kind")]


@component
class Recipe:
    """One run: model, loss, data, training and evaluation."""

    name: str  # preset it came from, for example "yolov8n"
    model: ModelConfig
    criterion: AnyCriterion
    data: DataConfig
    augment: AugmentConfig
    train: TrainConfig = TrainConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @property
    def num_classes(self) -> int:
        """Classes of the model's outputs."""
        return self.model.num_classes if isinstance(self.model, ClassifierConfig) else self.model.head.num_classes

    @property
    def exclusive(self) -> bool:
        """Whether the model's classes exclude one another."""
        return self.model.exclusive if isinstance(self.model, ClassifierConfig) else self.model.head.exclusive

    def vocabulary(self, names: Sequence[str], class_ids: Sequence[int] | None = None) -> Vocabulary:
        """How the outputs of this recipe's model read, with these class names."""
        head = None if isinstance(self.model, ClassifierConfig) else self.model.head
        return Vocabulary(
            task=self.data.task,
            names=tuple(names),
            class_ids=None if class_ids is None else tuple(class_ids),
            exclusive=self.exclusive,
            keypoints=getattr(head, "keypoints", None),
            attributes=getattr(head, "attributes", ()),
        )
