# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Loss terms: (predictions, targets, pairs) -> contributions of shape (P,) or (B, A), normalised, before gain.

Lives here: one frozen dataclass per term, and the one list of built-in terms below. A term is written as its paper
writes it, dense and with autograd, and says its scope, divisor and class weights itself (`base.py`).
May import: `ops`, `structures`, `losses`; never `kernels`, where a faster form may stand under the same name.
To add one: the dataclass, its line in `BuiltInTerm`, a test of the same name.
Never here: a gain, a reduction to a scalar, an `if` about empty targets.
"""

from typing import Annotated

from pydantic import Field

from boxwright.losses.terms.anchor_box import AnchorOverlap
from boxwright.losses.terms.angle import Angle
from boxwright.losses.terms.attributes import Attribute
from boxwright.losses.terms.box import BoxOverlap, DistanceBins, DistanceL1
from boxwright.losses.terms.keypoint import KeypointLikelihood, KeypointLocation, KeypointVisibility
from boxwright.losses.terms.mask import PrototypeMasks
from boxwright.losses.terms.matched_scores import ExclusiveScores, HardScores
from boxwright.losses.terms.objectness import Objectness
from boxwright.losses.terms.query_box import BoxL1, QueryOverlap
from boxwright.losses.terms.query_scores import QueryScores, QueryVarifocalScores
from boxwright.losses.terms.scores import FocalScores, QualityFocalScores, SoftScores, VarifocalScores
from boxwright.losses.terms.semantic import SemanticMap

BuiltInTerm = Annotated[
    AnchorOverlap
    | Angle
    | Attribute
    | BoxL1
    | BoxOverlap
    | ExclusiveScores
    | KeypointLikelihood
    | KeypointLocation
    | KeypointVisibility
    | PrototypeMasks
    | SemanticMap
    | HardScores
    | Objectness
    | DistanceBins
    | DistanceL1
    | QueryOverlap
    | QueryScores
    | QueryVarifocalScores
    | SoftScores
    | FocalScores
    | QualityFocalScores
    | VarifocalScores,
    Field(discriminator="kind"),
]
