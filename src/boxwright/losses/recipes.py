# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Complete criteria by name: what the published models train with, with our recommended defaults.

Every function returns a plain `Criterion`: print it, write it as YAML, replace any part.
"""

from collections.abc import Mapping
from typing import Any, Literal

from boxwright.losses.assign.anchor_ratio import AnchorRatio
from boxwright.losses.criterion import Criterion, Rule, Weighted
from boxwright.losses.terms import BuiltInTerm
from boxwright.losses.terms.anchor_box import AnchorOverlap
from boxwright.losses.terms.mask import PrototypeMasks
from boxwright.losses.terms.matched_scores import ExclusiveScores, HardScores
from boxwright.losses.terms.objectness import Balance, Objectness
from boxwright.ops.overlap import OverlapName

YOLOV5_GAINS = {"box": 0.05, "obj": 1.0, "cls": 0.5}  # at 80 classes, 640 px and 3 levels


def yolov5_gains(
    classes: int, image_size: int = 640, levels: int = 3, gains: Mapping[str, float] | None = None
) -> dict[str, float]:
    """Gains for a model of this many classes and levels at this image side (px), from those at 80, 640 px and 3.

    The published trainer does this once at start-up, outside the criterion: comparing raw gains across code bases
    misleads.

    >>> {name: round(gain, 6) for name, gain in yolov5_gains(classes=20, image_size=320).items()}
    {'box': 0.05, 'obj': 0.25, 'cls': 0.125}

    Source: spec/losses E.1 and H.23.
    """
    base, share = YOLOV5_GAINS | dict(gains or {}), 3 / levels
    return {
        **base,
        "box": base["box"] * share,
        "obj": base["obj"] * (image_size / 640) ** 2 * share,
        "cls": base["cls"] * classes / 80 * share,
    }


def yolov5_detect(
    *,
    gains: Mapping[str, float] | None = None,
    ratio: float = 4.0,
    balance: Balance = "published",
    gr: float = 1.0,
    duplicates: Literal["max", "last"] = "max",
    overlap: OverlapName = "ciou",
    smoothing: float = 0.0,
    class_weight: float = 1.0,
    objectness_weight: float = 1.0,
    focal_gamma: float = 0.0,
) -> Criterion:
    """YOLOv5 detection: classes that may occur together.

    Args:
        gains: of the terms box, obj and cls; see `yolov5_gains` for models of other sizes.
        ratio: sides of object and prior differ by less than this factor.
        balance: weight of each level's objectness, finest first, or `AutoBalance()`.
        gr: share of the box overlap in the objectness target.
        duplicates: which of several claims on a candidate decides its objectness.
        overlap: of the box term and the objectness target.
        smoothing: of the class targets.
        class_weight: factor on the positive half of the class term.
        objectness_weight: factor on the positive half of the objectness term.
        focal_gamma: above 0, the focal factor of the class and objectness terms.
    """
    scores = HardScores(
        smoothing=smoothing,
        pos_weight=class_weight,
        modulation="focal" if focal_gamma > 0 else "none",
        gamma=focal_gamma or 1.5,
    )
    objectness = Objectness(
        balance=balance,
        gr=gr,
        duplicates=duplicates,
        overlap=overlap,
        pos_weight=objectness_weight,
        focal_gamma=focal_gamma,
    )
    return _yolov5({"box": AnchorOverlap(overlap=overlap), "obj": objectness, "cls": scores}, gains, ratio)


def yolov5_exclusive(
    *,
    gains: Mapping[str, float] | None = None,
    ratio: float = 4.0,
    balance: Balance = "published",
    gr: float = 1.0,
    duplicates: Literal["max", "last"] = "max",
    overlap: OverlapName = "ciou",
    smoothing: float = 0.0,
    objectness_weight: float = 1.0,
    focal_gamma: float = 0.0,
) -> Criterion:
    """YOLOv5 detection with classes that exclude one another: cross-entropy over matched candidates.

    Options as in `yolov5_detect`; the focal factor applies to objectness only. The class term is a mean over pairs, not
    over pairs and classes, so at equal gain it weighs about as many times more as there are classes: retune it.
    """
    objectness = Objectness(
        balance=balance,
        gr=gr,
        duplicates=duplicates,
        overlap=overlap,
        pos_weight=objectness_weight,
        focal_gamma=focal_gamma,
    )
    scores = ExclusiveScores(smoothing=smoothing)
    return _yolov5({"box": AnchorOverlap(overlap=overlap), "obj": objectness, "cls": scores}, gains, ratio)


def yolov5_segment(*, gains: Mapping[str, float] | None = None, exclusive: bool = False, **options: Any) -> Criterion:
    """YOLOv5 segmentation: detection, and masks of prototypes with the box gain unless `gains` names "seg".

    A mask counts as the mean over the claims of its image and level. Options as in `yolov5_detect`, or as in
    `yolov5_exclusive` where classes exclude one another.
    """
    base = (yolov5_exclusive if exclusive else yolov5_detect)(gains=gains, **options).rules["main"]
    given = dict(gains or {})
    gain = given.get("seg", given.get("box", YOLOV5_GAINS["box"]))
    masks = Weighted(term=PrototypeMasks(reduction="image_levels"), gain=gain)
    terms = {"box": base.terms["box"], "seg": masks, "obj": base.terms["obj"], "cls": base.terms["cls"]}
    return Criterion(rules={"main": Rule(assigner=base.assigner, terms=terms)})


def _yolov5(terms: Mapping[str, BuiltInTerm], gains: Mapping[str, float] | None, ratio: float) -> Criterion:
    gain = YOLOV5_GAINS | dict(gains or {})
    weighted = {name: Weighted(term=term, gain=gain[name]) for name, term in terms.items()}
    return Criterion(rules={"main": Rule(assigner=AnchorRatio(ratio=ratio), terms=weighted)})
