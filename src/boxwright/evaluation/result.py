# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""What an evaluation found out, of any task: numbers by path, a table for each kind, curves, confusion."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
from jaxtyping import Int64

from boxwright.evaluation.curves import Curves

Kind = Literal["box", "mask", "pose", "obb", "image"]  # what is compared; "image" is the label of a whole image
NAN = float("nan")


@dataclass(frozen=True, slots=True)
class ClassResult:
    """One line of a results table; NaN where the class has no labels or the kind has no such number."""

    name: str
    images: int  # with at least one label of the class
    instances: int
    precision: float  # at the operating point, overlap 0.5; of images: of the best class
    recall: float
    f1: float
    ap50: float = NAN  # COCO evaluator
    ap50_95: float = NAN
    curve_ap50: float = NAN  # 101-point curve
    curve_ap50_95: float = NAN
    ap_small: float = NAN  # ap50_95 of labels below 32^2 px^2, from there to 96^2, and above; -1 where none is labelled
    ap_medium: float = NAN
    ap_large: float = NAN
    top1: float = NAN  # images whose best class (one of whose best five classes) is the right one
    top5: float = NAN


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """Everything an evaluation found out."""

    names: tuple[str, ...]
    metrics: dict[str, float]  # "box/ap50_95", "top1", ...; COCO writes -1 for what no label allows to measure
    tables: Mapping[Kind, tuple[ClassResult, ...]]  # one line per class, in class order
    kind_curves: Mapping[Kind, Curves]  # none of whole images
    confusion: Int64[np.ndarray, "n n"]  # rows predicted, columns true; last index background where there is one
    images: int
    instances: int
    fitness: float  # what the best epoch is chosen by; 0 without labels

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """What was compared; the first is the one that labels and detections are matched by."""
        return tuple(self.tables)

    @property
    def per_class(self) -> tuple[ClassResult, ...]:
        """The lines of the first kind."""
        return self.tables[self.kinds[0]]

    @property
    def curves(self) -> Curves:
        """The curves of the first kind.

        Raises:
            KeyError: these are labels of whole images.
        """
        return self.kind_curves[self.kinds[0]]

    @property
    def total(self) -> ClassResult:
        """The line "all" of the first kind: means over the classes that have labels."""
        return self.total_of(self.kinds[0])

    def total_of(self, kind: Kind) -> ClassResult:
        """The line "all" of a kind."""
        prefix = "" if kind == "image" else f"{kind}/"
        scores = [of.name for of in fields(ClassResult)[3:]]
        known = {name: self.metrics[prefix + name] for name in scores if prefix + name in self.metrics}
        missing = {name: NAN for name in ("precision", "recall", "f1") if name not in known}
        return ClassResult(name="all", images=self.images, instances=self.instances, **missing, **known)
