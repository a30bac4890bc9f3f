# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The old path of `boxwright.drawn.synthetic`."""

from boxwright.drawn.synthetic import draw_dataset

__all__ = ["draw_dataset"]
