# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Means and speed of an epoch, kept on the device so that a step waits for no number."""

import time

import torch
from torch import Tensor

from boxwright.engine.distributed import mean_over_ranks
from boxwright.structures import LossBreakdown

_SHOW_EVERY = 0.2  # seconds between two readings of the device


class Meter:
    """Adds up what an epoch's steps report."""

    def __init__(self, world: int) -> None:
        self._world = world
        self._names: tuple[str, ...] = ()
        self._sums: Tensor | None = None
        self._steps = 0
        self._images = 0
        self._began = time.perf_counter()
        self._shown = 0.0

    def add(self, breakdown: LossBreakdown, images: int) -> None:
        """Notes one step of `images` images on this rank."""
        components = breakdown.components
        values = torch.stack(list(components.values())).detach()
        self._names = tuple(components)
        self._sums = values if self._sums is None else self._sums + values
        self._steps += 1
        self._images += images

    @property
    def seconds(self) -> float:
        """Since the epoch began."""
        return time.perf_counter() - self._began

    @property
    def images_per_second(self) -> float:
        """Over all ranks, assuming that they are equally fast."""
        return self._images * self._world / self.seconds

    def due(self, *, last: bool) -> bool:
        """Whether it is time to show numbers again: a few times a second, and at the last step."""
        now = self.seconds
        if not last and self._shown and now - self._shown < _SHOW_EVERY:
            return False
        self._shown = now
        return True

    def shown(self) -> dict[str, float]:
        """Mean components so far as this rank sees them, scaled to all ranks. Syncs with the device once."""
        if self._sums is None:
            return {}
        means = (self._sums * (self._world / self._steps)).tolist()
        return dict(zip(self._names, means, strict=True))

    def means(self) -> dict[str, float]:
        """Mean components of the epoch over all ranks; every rank must call it. Syncs."""
        if self._sums is None:
            return {}
        # A component is this rank's share of a global sum: the mean over ranks times their number is the sum.
        total = mean_over_ranks({"sums": self._sums})["sums"] * (self._world / self._steps)
        return dict(zip(self._names, total.tolist(), strict=True))
