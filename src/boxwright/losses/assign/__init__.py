# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Assigners: (predictions, targets) -> pairs, without gradient.

Lives here: one frozen dataclass per assigner, and the one list of built-in assigners below.
May import: `ops`, `kernels`, `structures`, `losses.layout`.
To add one: the file, its line in `Assigner`, a brute-force reference in `tests/reference`, a test of the same name.
Never here: a loss value, a tensor of shape (images, objects, anchors), a host sync that the docstring does not name.
"""

from typing import Annotated

from pydantic import Field

from boxwright.losses.assign.anchor_ratio import AnchorRatio
from boxwright.losses.assign.atss import ATSS
from boxwright.losses.assign.hungarian import Hungarian
from boxwright.losses.assign.keypoint_fit import KeypointFit as KeypointFit
from boxwright.losses.assign.known import Known
from boxwright.losses.assign.mask_fit import MaskFit as MaskFit
from boxwright.losses.assign.simota import SimOTA
from boxwright.losses.assign.task_aligned import TaskAligned

Assigner = Annotated[AnchorRatio | TaskAligned | SimOTA | ATSS | Hungarian | Known, Field(discriminator="kind")]
