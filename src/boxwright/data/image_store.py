# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Pixels of a split by index, decoded on demand or kept in memory or on disk."""

from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8

from boxwright.data.policy import DataConfig
from boxwright.data.sample import Records


class ImageStore:
    """Images of one split. Safe to use from forked and spawned workers.

    `messages` says what was cached and what did not fit.
    """

    messages: tuple[str, ...]

    def __init__(self, records: Records, config: DataConfig, on_progress: Callable[[int, int], None] | None = None):
        raise NotImplementedError

    def __len__(self) -> int:
        raise NotImplementedError

    def image(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """RGB pixels in the size of the file."""
        raise NotImplementedError

    def resized(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """RGB pixels with the long side resized to `imgsz`. Treat as read-only: it may be the cache itself."""
        raise NotImplementedError
