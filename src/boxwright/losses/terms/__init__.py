# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Loss terms: (predictions, targets, pairs) -> contributions of shape (P,) or (B, A), normalised, before gain.

Lives here: one frozen dataclass per term, and the one list of built-in terms below.
May import: `ops`, `structures`, `losses.functional`.
To add one: the dataclass, its line in `Term`, a test of the same name.
Never here: a gain, a reduction to a scalar, an `if` about empty targets.
"""

from typing import Annotated

from pydantic import Field

from boxwright.losses.terms.box import BoxOverlap, DistanceBins
from boxwright.losses.terms.scores import SoftScores

Term = Annotated[BoxOverlap | DistanceBins | SoftScores, Field(discriminator="kind")]
