# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The old path of `boxwright.loading.loader`."""

from boxwright.loading.loader import val_loader

__all__ = ["val_loader"]
