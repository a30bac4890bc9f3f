# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Assigners: (predictions, targets) -> pairs, without gradient, each as its paper defines it.

Lives here: one frozen dataclass per assigner, written over dense (objects, cells) tensors of one image at a time, and
the one list of built-in assigners below. A criterion runs their faster forms of `kernels/assign`.
May import: `ops`, `structures`.
To add one: the file, its line in `Assigner`, a brute-force reference in `tests/reference`, a test of the same name.
To make it fast: a function of its kind in `kernels/assign`, and a test that it gives the same pairs.
Never here: a loss value, a layout, a cut into pieces, anything that is here for speed alone.
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
