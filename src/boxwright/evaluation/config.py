# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""How a model is evaluated, as a plain config; imports no torch."""

from typing import Literal

from boxwright.config import component
from boxwright.errors import ConfigError

CurveForm = Literal["2026", "legacy"]


@component
class EvaluationConfig:
    """What counts as a detection in validation, and how it is scored.

    Source: spec/recipe 7.
    """

    conf: float = 0.001  # a candidate's score must be above it
    iou: float = 0.7  # NMS removes what overlaps a better box by more
    max_det: int = 300  # detections kept per image
    multi_label: bool = True  # one row per (box, class) above conf, not only the best class
    agnostic: bool = False  # NMS across classes
    batch: int | None = None  # images per step over all ranks; None takes twice the training batch
    curve: CurveForm = "2026"  # form of the 101-point curve AP; "legacy" overstates it, see `evaluation/curves.py`
    confusion_conf: float = 0.25  # scores counted in the confusion matrix are above it
    confusion_iou: float = 0.45  # overlaps counted in the confusion matrix are above it
    plots: bool = True  # curves and confusion matrix as PNG

    def __post_init__(self) -> None:
        for name in ("conf", "iou", "confusion_conf", "confusion_iou"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"evaluation.{name}: expected a number from 0 to 1, got {getattr(self, name)}")
        for name, value in (("max_det", self.max_det), ("batch", self.batch)):
            if value is not None and value < 1:
                raise ConfigError(f"evaluation.{name}: expected at least 1, got {value}")
