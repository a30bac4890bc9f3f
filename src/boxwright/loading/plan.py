# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Which positions each batch of each rank holds, and the shapes of validation batches. Plain arithmetic, no torch."""

import math
import os
from collections.abc import Sequence

from boxwright.errors import ConfigError, DataError

MAX_WORKERS = 8
VALIDATION_PAD = 0.5  # strides added to a validation rectangle; spec/recipe 6


def default_workers(world: int = 1) -> int:
    """Loader processes per rank: the cores this process may use, shared by the ranks, less one for each; at most 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(MAX_WORKERS, max(cores // world - 1, 0))


def global_batches(count: int, batch: int, world: int) -> list[range]:
    """Positions of each global batch; a last one with fewer images than ranks joins the one before it.

    Raises:
        DataError: there is no image.
        ConfigError: some rank would get no image.
    """
    if count == 0:
        raise DataError("this split has no usable image; run `boxwright check` on the dataset")
    batch = min(batch, count)
    if batch < world:
        raise ConfigError(
            f"train.batch: expected at least one image per rank, got {batch} (of {count} images) for {world} ranks"
        )
    starts = list(range(0, count, batch))
    if count - starts[-1] < world:
        starts.pop()
    return [range(start, end) for start, end in zip(starts, [*starts[1:], count], strict=True)]


def rank_share(positions: range, rank: int, world: int) -> range:
    """The contiguous part of a global batch that one rank takes; parts differ by at most one image."""
    size, extra = divmod(len(positions), world)
    start = rank * size + min(rank, extra)
    return positions[start : start + size + (rank < extra)]


def validation_shape(aspects: Sequence[float], imgsz: int, stride: int) -> tuple[int, int]:
    """The common (H, W) of a batch whose images have these h / w: as little padding as half a stride more allows."""
    shape = (1.0, 1.0)
    if max(aspects) < 1:
        shape = (max(aspects), 1.0)
    elif min(aspects) > 1:
        shape = (1.0, 1 / min(aspects))
    height, width = (math.ceil(side * imgsz / stride + VALIDATION_PAD) * stride for side in shape)
    return height, width
