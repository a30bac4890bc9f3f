# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Factors that follow the progress of a training. They know no step and no epoch: progress comes with the call."""

import math
from typing import Annotated, Literal

from pydantic import Field

from boxwright.config import component
from boxwright.errors import ConfigError


@component
class Linear:
    """A factor that moves evenly from `start` at the first epoch to `end` at the last."""

    kind: Literal["linear"] = "linear"
    start: float
    end: float

    def at(self, progress: float) -> float:
        """The factor when a share `progress` (0 to 1) of the training is done; progress beyond 1 stays at the end."""
        return max(1.0 - progress, 0.0) * (self.start - self.end) + self.end


@component
class Cosine:
    """A factor that moves from `start` to `end` along half a cosine: slowly first and last, fastest in the middle."""

    kind: Literal["cosine"] = "cosine"
    start: float
    end: float

    def at(self, progress: float) -> float:
        """The factor when a share `progress` (0 to 1) of the training is done.

        >>> [round(Cosine(start=1.0, end=0.0).at(progress), 4) for progress in (0.0, 0.25, 0.5, 1.0)]
        [1.0, 0.8536, 0.5, 0.0]
        """
        turned = math.pi * min(max(progress, 0.0), 1.0)
        return self.end + (self.start - self.end) * (1 + math.cos(turned)) / 2


@component
class Switch:
    """A factor that is `start` until a share `when` of the training is done, and `end` from there on."""

    kind: Literal["switch"] = "switch"
    start: float
    end: float
    when: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.when <= 1:
            raise ConfigError(f"Switch.when: expected a share of the training from 0 to 1, got {self.when}")

    def at(self, progress: float) -> float:
        """The factor when a share `progress` (0 to 1) of the training is done."""
        return self.start if progress < self.when else self.end


Schedule = float | Annotated[Linear | Cosine | Switch, Field(discriminator="kind")]


def value_at(schedule: Schedule, progress: float) -> float:
    """A constant as it is, a schedule at this progress.

    >>> value_at(0.5, 0.1), value_at(Linear(start=1.0, end=0.0), 0.25)
    (0.5, 0.75)
    """
    return float(schedule) if isinstance(schedule, int | float) else schedule.at(progress)
