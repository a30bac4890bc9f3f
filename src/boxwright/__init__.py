# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""boxwright."""

__version__ = "0.1.0.dev0"
