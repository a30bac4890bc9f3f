# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The version of the package, below every room that writes it into a file."""

__version__ = "0.1.0.dev0"
