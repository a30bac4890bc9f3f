# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Class weights from how often each class is labelled: rare classes weigh more.

What makes the weights stands in the config; the numbers are computed once, at the start of a training, from its labels.
"""

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Literal

from pydantic import Field

from boxwright.config import component
from boxwright.errors import ConfigError

LOG_SHIFT = 1.02  # keeps the logarithm of the rarest class away from 0 and its weight at 1 / ln 2.02 = 1.42

WeightMode = Literal["positive", "both"]


@component
class NoClassWeights:
    """Every class weighs 1."""

    kind: Literal["none"] = "none"

    def of(self, counts: Sequence[int]) -> None:
        """None."""


@component
class InverseFrequency:
    """Total / (classes * count): a class of average size weighs 1.

    Source: spec/losses D.2.
    """

    kind: Literal["inverse"] = "inverse"
    mode: WeightMode = "positive"

    def of(self, counts: Sequence[int]) -> tuple[float, ...]:
        """One weight for each class; absent ones get the mean of the others.

        >>> [round(weight, 4) for weight in InverseFrequency().of((100, 50, 10))]
        [0.5333, 1.0667, 5.3333]

        Raises:
            ConfigError: no class has a label.
        """
        return _over_present(counts, lambda some: [sum(some) / (len(some) * count) for count in some])


@component
class LogFrequency:
    """1 / ln(1.02 + count / smallest count): milder than inverse frequency.

    Source: ENet, Paszke et al. 2016, arXiv:1606.02147 (there of frequencies, here of ratios); spec/losses D.2.
    """

    kind: Literal["log"] = "log"
    mode: WeightMode = "positive"

    def of(self, counts: Sequence[int]) -> tuple[float, ...]:
        """One weight for each class; absent ones get the mean of the others.

        >>> [round(weight, 4) for weight in LogFrequency().of((100, 50, 10))]
        [0.4167, 0.5571, 1.4223]

        Raises:
            ConfigError: no class has a label.
        """
        return _over_present(counts, lambda some: [1 / math.log(LOG_SHIFT + count / min(some)) for count in some])


@component
class PowerFrequency:
    """Count to the power of -rho, scaled so that the weights of all classes average 1.

    Rho 0 gives 1 to every class, rho 1 the inverse frequency.

    Source: spec/losses D.2 and F.6.
    """

    kind: Literal["power"] = "power"
    power: Annotated[float, Field(ge=0, le=1)] = 0.5
    mode: WeightMode = "both"

    def __post_init__(self) -> None:
        if not 0 <= self.power <= 1:
            raise ConfigError(f"criterion.class_weights.power: expected a number from 0 to 1, got {self.power}")

    def of(self, counts: Sequence[int]) -> tuple[float, ...]:
        """One weight for each class; absent ones get the mean of the others.

        >>> [round(weight, 4) for weight in PowerFrequency(power=0.5).of((100, 50, 10))]
        [0.538, 0.7608, 1.7012]

        Raises:
            ConfigError: no class has a label.
        """
        weights = _over_present(counts, lambda some: [count**-self.power for count in some])
        mean = sum(weights) / len(weights)
        return tuple(weight / mean for weight in weights)


@component
class GivenClassWeights:
    """The numbers themselves, in the order of the classes."""

    kind: Literal["explicit"] = "explicit"
    values: tuple[float, ...] = ()
    mode: WeightMode = "positive"

    def of(self, counts: Sequence[int]) -> tuple[float, ...]:
        """The values.

        Raises:
            ConfigError: their number is not that of the classes.
        """
        if len(self.values) != len(counts):
            raise ConfigError(
                f"criterion.class_weights.values: expected {len(counts)} numbers, one for each class, "
                f"got {len(self.values)}"
            )
        return self.values


ClassWeights = Annotated[
    NoClassWeights | InverseFrequency | LogFrequency | PowerFrequency | GivenClassWeights, Field(discriminator="kind")
]


def _over_present(counts: Sequence[int], weigh: Callable[[list[int]], list[float]]) -> tuple[float, ...]:
    """Weights of the classes that occur, and their mean for the others."""
    present = [count for count in counts if count > 0]
    if not present or min(counts) < 0:
        raise ConfigError(f"class_weights: expected counts of labels with at least one above 0, got {list(counts)}")
    weights = weigh(present)
    mean, found = sum(weights) / len(weights), iter(weights)
    return tuple(next(found) if count > 0 else mean for count in counts)
