# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The heart: who learns from whom, and what it costs. Usable without our models, data or trainer.

    from boxwright.losses import from_yolov8_maps, targets_from_rows, yolov8_detect

Lives here: assigners (pairs), terms (weighted, normalised contributions), the criterion that joins them by role,
`layout/` (what labels and grid decide before the step) and adapters for what other code bases have in hand.
Names are imported when they are first used.
May import: `ops`, `kernels`, `structures`, `config`, `errors`.
To add a term: a dataclass in `terms/`, one line in `terms/__init__.py`, a test (reference value, gradcheck, P = 0).
To add an assigner: a file in `assign/`, one line in `assign/__init__.py`, a brute-force reference in the tests; where
its definition is too slow to train with, a faster form in `kernels/assign`.
Both: a page in `docs/templates`, and its name in the lists below.
Never here: a model, a file, a reduction outside the criterion, a special case for "no objects", a sync in the step.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boxwright.losses.adapters import BoxUnit as BoxUnit
    from boxwright.losses.adapters import PriorUnit as PriorUnit
    from boxwright.losses.adapters import denoising_pairs as denoising_pairs
    from boxwright.losses.adapters import from_detr_stacks as from_detr_stacks
    from boxwright.losses.adapters import from_yolov5_maps as from_yolov5_maps
    from boxwright.losses.adapters import from_yolov8_joined as from_yolov8_joined
    from boxwright.losses.adapters import from_yolov8_maps as from_yolov8_maps
    from boxwright.losses.adapters import targets_from_padded as targets_from_padded
    from boxwright.losses.adapters import targets_from_rows as targets_from_rows
    from boxwright.losses.adapters import yolov5_grid as yolov5_grid
    from boxwright.losses.assign.anchor_ratio import AnchorRatio as AnchorRatio
    from boxwright.losses.assign.atss import ATSS as ATSS
    from boxwright.losses.assign.hungarian import Hungarian as Hungarian
    from boxwright.losses.assign.keypoint_fit import KeypointFit as KeypointFit
    from boxwright.losses.assign.known import Known as Known
    from boxwright.losses.assign.mask_fit import MaskFit as MaskFit
    from boxwright.losses.assign.simota import SimOTA as SimOTA
    from boxwright.losses.assign.task_aligned import TaskAligned as TaskAligned
    from boxwright.losses.criterion import Criterion as Criterion
    from boxwright.losses.criterion import Rule as Rule
    from boxwright.losses.criterion import Weighted as Weighted
    from boxwright.losses.dense_recipes import end_to_end_detect as end_to_end_detect
    from boxwright.losses.dense_recipes import end_to_end_progressive as end_to_end_progressive
    from boxwright.losses.dense_recipes import yolov8_detect as yolov8_detect
    from boxwright.losses.dense_recipes import yolov8_oriented as yolov8_oriented
    from boxwright.losses.dense_recipes import yolov8_pose as yolov8_pose
    from boxwright.losses.dense_recipes import yolov8_segment as yolov8_segment
    from boxwright.losses.query_recipes import rtdetr as rtdetr
    from boxwright.losses.query_recipes import rtdetr_modern as rtdetr_modern
    from boxwright.losses.query_recipes import set_prediction_components as set_prediction_components
    from boxwright.losses.recipes import yolov5_detect as yolov5_detect
    from boxwright.losses.recipes import yolov5_exclusive as yolov5_exclusive
    from boxwright.losses.recipes import yolov5_gains as yolov5_gains
    from boxwright.losses.recipes import yolov5_segment as yolov5_segment
    from boxwright.losses.schedule import Linear as Linear
    from boxwright.losses.terms.anchor_box import AnchorOverlap as AnchorOverlap
    from boxwright.losses.terms.angle import Angle as Angle
    from boxwright.losses.terms.attributes import Attribute as Attribute
    from boxwright.losses.terms.box import BoxOverlap as BoxOverlap
    from boxwright.losses.terms.box import DistanceBins as DistanceBins
    from boxwright.losses.terms.box import DistanceL1 as DistanceL1
    from boxwright.losses.terms.keypoint import KeypointLikelihood as KeypointLikelihood
    from boxwright.losses.terms.keypoint import KeypointLocation as KeypointLocation
    from boxwright.losses.terms.keypoint import KeypointVisibility as KeypointVisibility
    from boxwright.losses.terms.mask import PrototypeMasks as PrototypeMasks
    from boxwright.losses.terms.matched_scores import ExclusiveScores as ExclusiveScores
    from boxwright.losses.terms.matched_scores import HardScores as HardScores
    from boxwright.losses.terms.objectness import Objectness as Objectness
    from boxwright.losses.terms.query_box import BoxL1 as BoxL1
    from boxwright.losses.terms.query_box import QueryOverlap as QueryOverlap
    from boxwright.losses.terms.query_scores import QueryScores as QueryScores
    from boxwright.losses.terms.query_scores import QueryVarifocalScores as QueryVarifocalScores
    from boxwright.losses.terms.scores import FocalScores as FocalScores
    from boxwright.losses.terms.scores import QualityFocalScores as QualityFocalScores
    from boxwright.losses.terms.scores import SoftScores as SoftScores
    from boxwright.losses.terms.scores import VarifocalScores as VarifocalScores
    from boxwright.losses.terms.semantic import SemanticMap as SemanticMap
    from boxwright.ops.grid import grid_for_image as grid_for_image
    from boxwright.structures import LossBreakdown as LossBreakdown
    from boxwright.structures import Outputs as Outputs
    from boxwright.structures import Predictions as Predictions
    from boxwright.structures import Targets as Targets

# Module -> public names that live in it.
_HOMES = {
    "losses.adapters": (
        "BoxUnit",
        "PriorUnit",
        "denoising_pairs",
        "from_detr_stacks",
        "from_yolov5_maps",
        "from_yolov8_joined",
        "from_yolov8_maps",
        "targets_from_padded",
        "targets_from_rows",
        "yolov5_grid",
    ),
    "losses.assign.anchor_ratio": ("AnchorRatio",),
    "losses.assign.atss": ("ATSS",),
    "losses.assign.hungarian": ("Hungarian",),
    "losses.assign.keypoint_fit": ("KeypointFit",),
    "losses.assign.known": ("Known",),
    "losses.assign.mask_fit": ("MaskFit",),
    "losses.assign.simota": ("SimOTA",),
    "losses.assign.task_aligned": ("TaskAligned",),
    "losses.criterion": (
        "Criterion",
        "Rule",
        "Weighted",
    ),
    "losses.dense_recipes": (
        "end_to_end_detect",
        "end_to_end_progressive",
        "yolov8_detect",
        "yolov8_oriented",
        "yolov8_pose",
        "yolov8_segment",
    ),
    "losses.query_recipes": (
        "rtdetr",
        "rtdetr_modern",
        "set_prediction_components",
    ),
    "losses.recipes": (
        "yolov5_detect",
        "yolov5_exclusive",
        "yolov5_gains",
        "yolov5_segment",
    ),
    "losses.schedule": ("Linear",),
    "losses.terms.anchor_box": ("AnchorOverlap",),
    "losses.terms.angle": ("Angle",),
    "losses.terms.attributes": ("Attribute",),
    "losses.terms.box": (
        "BoxOverlap",
        "DistanceBins",
        "DistanceL1",
    ),
    "losses.terms.keypoint": (
        "KeypointLikelihood",
        "KeypointLocation",
        "KeypointVisibility",
    ),
    "losses.terms.mask": ("PrototypeMasks",),
    "losses.terms.matched_scores": (
        "ExclusiveScores",
        "HardScores",
    ),
    "losses.terms.objectness": ("Objectness",),
    "losses.terms.query_box": (
        "BoxL1",
        "QueryOverlap",
    ),
    "losses.terms.query_scores": (
        "QueryScores",
        "QueryVarifocalScores",
    ),
    "losses.terms.scores": (
        "FocalScores",
        "QualityFocalScores",
        "SoftScores",
        "VarifocalScores",
    ),
    "losses.terms.semantic": ("SemanticMap",),
    "ops.grid": ("grid_for_image",),
    "structures": (
        "LossBreakdown",
        "Outputs",
        "Predictions",
        "Targets",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'boxwright.losses' has no attribute {name!r}")
    value = getattr(import_module(f"boxwright.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF})
