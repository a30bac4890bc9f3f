# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Room card: the types that rooms hand to each other. Read this room first.

Letters, the same in every file: B images, M target slots per image (padded), A candidates (grid cells times priors of
all levels, or queries), P matched pairs, C classes, K keypoints, R distance bins, Q mask coefficients, N detections,
H W input pixels, h w mask grid. All types are frozen; nobody writes into their tensors.
Boxes are xyxy pixels of the network input unless a name says otherwise; oriented boxes are (cx, cy, w, h, theta) with
theta in radians.

Lives here: `grid` (candidate positions), `targets` (labels, and what is laid out of them), `predictions` (raw outputs),
`pairs` (who learns from whom, and what it costs), `images` (labels and outputs of whole images), `fields` (checks).
May import: errors.
Never here: arithmetic that a type does not need to be read, a file, a name of a model or dataset.
"""

from boxwright.structures.fields import at_least_float32
from boxwright.structures.grid import Grid
from boxwright.structures.images import ImageOutputs, ImageTargets
from boxwright.structures.pairs import Assignment, LossBreakdown, LossItem, rows_at
from boxwright.structures.predictions import Decoder, MatchedRows, Outputs, Predictions
from boxwright.structures.targets import Candidates, ObjectRows, PriorMatches, Targets

__all__ = [
    "Assignment",
    "Candidates",
    "Decoder",
    "Grid",
    "ImageOutputs",
    "ImageTargets",
    "LossBreakdown",
    "LossItem",
    "MatchedRows",
    "ObjectRows",
    "Outputs",
    "Predictions",
    "PriorMatches",
    "Targets",
    "at_least_float32",
    "rows_at",
]
