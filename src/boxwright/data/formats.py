# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The old path of `boxwright.datasets.formats`."""

from boxwright.datasets.formats import open_dataset

__all__ = ["open_dataset"]
