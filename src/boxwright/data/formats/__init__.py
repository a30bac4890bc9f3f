# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Room card: data.formats

Lives here: one reader per dataset format, from files on disk to labels in pixels of their image.
May import: data.sample, data.policy, data.images, data.image_header; numpy, yaml; never torch.
To add one more: write `formats/<name>.py` with a `Format` (base.py) and add one line to FORMATS.
Never: write to a user's file, run or download anything a dataset names, drop a row without a problem that says so.
"""

from collections.abc import Sequence
from pathlib import Path

from boxwright.data.sample import DatasetHeader


def open_dataset(source: str | Path, names: Sequence[str] | None = None) -> DatasetHeader:
    """What the dataset at `source` says about itself.

    Raises:
        DataError: there is nothing there, no known format, or the description is wrong.
    """
    raise NotImplementedError
