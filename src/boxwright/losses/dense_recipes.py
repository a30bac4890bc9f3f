# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Complete criteria by name for anchor-free dense heads (YOLOv8 and its successors), with our recommended defaults.

Every function returns a plain `Criterion`: print it, write it as YAML, replace any part. `modern` switches on what the
successors changed (spec/losses F): small boxes are widened for the question which cells they hold, heads with one bin
learn distances by L1, and what each function names.

Source: spec/losses E.3 to E.8 and F.
"""

from collections.abc import Mapping

from boxwright.config import suggest
from boxwright.errors import ConfigError
from boxwright.losses.assign.keypoint_fit import KeypointFit
from boxwright.losses.assign.mask_fit import MaskFit
from boxwright.losses.assign.task_aligned import TaskAligned
from boxwright.losses.criterion import Criterion, Rule, Weighted
from boxwright.losses.schedule import Linear, Schedule
from boxwright.losses.terms import BuiltInTerm
from boxwright.losses.terms.angle import Angle
from boxwright.losses.terms.box import BoxOverlap, DistanceBins, DistanceL1
from boxwright.losses.terms.keypoint import KeypointLikelihood, KeypointLocation, KeypointVisibility
from boxwright.losses.terms.mask import PrototypeMasks
from boxwright.losses.terms.scores import SoftScores
from boxwright.losses.terms.semantic import SemanticMap
from boxwright.ops.box_losses import BoxSimilarityName
from boxwright.ops.overlap import OverlapName

DENSE_GAINS = {
    "box": 7.5,
    "cls": 0.5,
    "dfl": 1.5,
    "seg": 7.5,  # that of the box, as published
    "sem": 7.5,
    "pose": 12.0,
    "kobj": 1.0,
    "rle": 1.0,
    "angle": 1.0,
}
SMALLEST_ORIENTED = 2.0  # px; oriented boxes with a shorter side take no cell, as published
COV_FLOOR = 0.01  # square cells
KEYPOINT_LEVELS = (2.0, 12.0)  # cells; sides of the boxes that a level's candidates learn keypoints of


def yolov8_detect(
    *,
    topk: int = 10,
    overlap: OverlapName | BoxSimilarityName = "ciou",
    gains: Mapping[str, float] | None = None,
    num_bins: int = 16,
    modern: bool = False,
) -> Criterion:
    """YOLOv8 detection: task-aligned assignment, box overlap, soft class scores, distance bins.

    Args:
        topk: candidates that an object may take.
        overlap: of the box term; assignment is by CIoU.
        gains: of the terms box, cls and dfl, where they are not 7.5, 0.5 and 1.5.
        num_bins: of the head; it decides the `dfl` term of `modern`.
        modern: small boxes widened; L1 for one bin.
    """
    parts = {"box": BoxOverlap(overlap=overlap), **_common(num_bins, modern)}
    return Criterion(rules={"main": _rule(_assigner(topk, modern), parts, gains)})


def yolov8_segment(
    *,
    topk: int = 10,
    gains: Mapping[str, float] | None = None,
    num_bins: int = 16,
    modern: bool = False,
    semantic: bool = False,
    mask_aware: bool = False,
) -> Criterion:
    """YOLOv8 instance segmentation: detection, and masks from coefficients and prototypes (`seg`, gain 7.5).

    Args:
        topk: candidates that an object may take.
        gains: of the terms, where they are not the published ones.
        num_bins: of the head; it decides the `dfl` term of `modern`.
        modern: as in `yolov8_detect`; prototypes are brought to the size of the labels and not the reverse.
        semantic: adds the helper head's class map (`sem`, gain 7.5).
        mask_aware: assigns by the mean of box and mask overlap.
    """
    parts: dict[str, BuiltInTerm] = {
        "box": BoxOverlap(),
        "seg": PrototypeMasks(resize="prototypes" if modern else "labels"),
        **_common(num_bins, modern),
        **({"sem": SemanticMap()} if semantic else {}),
    }
    assigner = _assigner(topk, modern, fit=MaskFit() if mask_aware else None)
    return Criterion(rules={"main": _rule(assigner, parts, gains)})


def yolov8_pose(
    *,
    topk: int = 10,
    sigmas: tuple[float, ...] | None = None,
    gains: Mapping[str, float] | None = None,
    num_bins: int = 16,
    modern: bool = False,
    likelihood: bool = False,
) -> Criterion:
    """YOLOv8 keypoints: detection, their places (`pose`, gain 12) and whether they are visible (`kobj`, gain 1).

    Args:
        topk: candidates that an object may take.
        sigmas: the keypoints' tolerances; None: COCO's for 17 keypoints, else 1 / K.
        gains: of the terms, where they are not the published ones.
        num_bins: of the head; it decides the `dfl` term of `modern`.
        modern: as in `yolov8_detect`.
        likelihood: for heads that give spreads: adds their likelihood (`rle`, gain 1), and assigns by keypoint
            similarity on levels that fit the object's size.
    """
    parts: dict[str, BuiltInTerm] = {
        "box": BoxOverlap(),
        "pose": KeypointLocation(sigmas=sigmas),
        "kobj": KeypointVisibility(),
        **({"rle": KeypointLikelihood()} if likelihood else {}),
        **_common(num_bins, modern),
    }
    fit, levels = (KeypointFit(sigmas=sigmas), KEYPOINT_LEVELS) if likelihood else (None, None)
    assigner = _assigner(topk, modern, fit=fit, level_range=levels)
    return Criterion(rules={"main": _rule(assigner, parts, gains)})


def yolov8_oriented(
    *, topk: int = 10, gains: Mapping[str, float] | None = None, num_bins: int = 16, modern: bool = False
) -> Criterion:
    """YOLOv8 oriented boxes: detection with probIoU and distances in the frame of the turned box.

    Args:
        topk: candidates that an object may take.
        gains: of the terms, where they are not the published ones.
        num_bins: of the head; it decides the `dfl` term of `modern`.
        modern: as in `yolov8_detect`; the overlap of the box term has a floor, and squares learn their angle from a
            term of its own (`angle`, gain 1).
    """
    assigner = _assigner(topk, modern, overlap="probiou", smallest_side=SMALLEST_ORIENTED)
    parts: dict[str, BuiltInTerm] = {
        "box": BoxOverlap(overlap="probiou", cov_floor=COV_FLOOR if modern else 0.0),
        **_common(num_bins, modern),
        **({"angle": Angle()} if modern else {}),
    }
    return Criterion(rules={"main": _rule(assigner, parts, gains)})


def end_to_end_detect(
    *,
    one2many: Schedule = 1.0,
    one2one: Schedule = 1.0,
    topk: int = 10,
    topk2: int | None = None,
    gains: Mapping[str, float] | None = None,
    num_bins: int = 16,
    modern: bool = False,
) -> Criterion:
    """Two branches on the same targets, so that the second needs no suppression: many candidates per object, and one.

    Args:
        one2many: factor of the first branch, which may follow the progress of the training.
        one2one: factor of the second.
        topk: candidates that an object may take in the first.
        topk2: given, the second lets objects choose 7 candidates and keep this many; else they choose 1.
        gains: of the terms box, cls and dfl of both.
        num_bins: of the heads; it decides the `dfl` term of `modern`.
        modern: as in `yolov8_detect`.

    Source: YOLOv10, Wang et al. 2024, arXiv:2405.14458.
    """
    parts = {"box": BoxOverlap(), **_common(num_bins, modern)}
    single = _assigner(1, modern) if topk2 is None else _assigner(7, modern, topk2=topk2)
    return Criterion(
        rules={
            "one2many": _rule(_assigner(topk, modern), parts, gains, one2many),
            "one2one": _rule(single, parts, gains, one2one),
        }
    )


def end_to_end_progressive(*, gains: Mapping[str, float] | None = None, num_bins: int = 16) -> Criterion:
    """`end_to_end_detect` of 2026: the first branch fades from 0.8 to 0.1, the second chooses 7 and keeps 1.

    Source: spec/losses F.4.
    """
    return end_to_end_detect(
        one2many=Linear(start=0.8, end=0.1),
        one2one=Linear(start=0.2, end=0.9),
        topk2=1,
        gains=gains,
        num_bins=num_bins,
        modern=True,
    )


def _assigner(topk: int, modern: bool, **options: object) -> TaskAligned:
    return TaskAligned(topk=topk, min_side="second_stride" if modern else 0.0, **options)  # type: ignore[arg-type]


def _common(num_bins: int, modern: bool) -> dict[str, BuiltInTerm]:
    """Terms of every dense head, beside the box's."""
    return {"cls": SoftScores(), "dfl": DistanceL1() if modern and num_bins == 1 else DistanceBins()}


def _rule(
    assigner: TaskAligned, parts: Mapping[str, BuiltInTerm], gains: Mapping[str, float] | None, scale: Schedule = 1.0
) -> Rule:
    for name in gains or {}:
        if name not in parts:
            raise ConfigError(f"gains.{name}: no such term{suggest(name, parts)}")
    gain = DENSE_GAINS | dict(gains or {})
    weighted = {name: Weighted(term=term, gain=gain[name]) for name, term in parts.items()}
    return Rule(assigner=assigner, terms=weighted, scale=scale)
