# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The old path of `boxwright.datasets.dataset`."""

from boxwright.datasets.dataset import read_split

__all__ = ["read_split"]
