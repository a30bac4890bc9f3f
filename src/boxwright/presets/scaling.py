# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""How the sizes of a family follow from one table of layers.

Source: spec/architectures 1.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scale:
    """Factors of one size of a family."""

    depth: float
    width: float
    widest: int | None = None  # base widths are cut to this before they are scaled

    def channels(self, base: int) -> int:
        """Scaled width of a layer, rounded up to a multiple of 8.

        >>> Scale(depth=0.33, width=0.25).channels(6)
        8
        """
        return 8 * math.ceil(min(base, self.widest or base) * self.width / 8)

    def widths(self, *bases: int) -> tuple[int, ...]:
        """Scaled widths of several layers."""
        return tuple(map(self.channels, bases))

    def repeats(self, base: int) -> int:
        """Scaled repeats of a block; what is not repeated stays so.

        >>> [Scale(depth=0.33, width=1.0).repeats(base) for base in (1, 3, 6, 9)]
        [1, 1, 2, 3]
        """
        return max(round(base * self.depth), 1) if base > 1 else base

    def depths(self, *bases: int) -> tuple[int, ...]:
        """Scaled repeats of several blocks."""
        return tuple(map(self.repeats, bases))
