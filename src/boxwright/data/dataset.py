# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""A split of a dataset: its records, read and checked, and its images. Imports no torch."""

from collections.abc import Callable

from boxwright.data.image_store import ImageStore
from boxwright.data.policy import DataConfig, ImagePolicy
from boxwright.data.sample import DatasetHeader, Records, Split

__all__ = ["DataConfig", "ImagePolicy", "ImageStore", "read_split"]


def read_split(
    header: DatasetHeader,
    split: Split,
    config: DataConfig,
    on_progress: Callable[[int, int], None] | None = None,
) -> Records:
    """One split with its labels, fixed in memory as the policy says, and a report of everything found.

    Raises:
        DataError: something must be decided by a person before training; the message lists it.
    """
    raise NotImplementedError
