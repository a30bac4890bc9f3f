# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""What the templates of docs/templates may call: numbers and tables of our own code, and pictures drawn with it."""

from figures.assigners import denoising_text, everywhere, positives, query_table
from figures.canvas import Figures
from figures.objects import SCENE_TEXT
from figures.refusals import refusals
from figures.terms import gain_table, mask_example, overlap_table, quality, unit_gap, value

__all__ = [
    "SCENE_TEXT",
    "Figures",
    "denoising_text",
    "everywhere",
    "gain_table",
    "mask_example",
    "overlap_table",
    "positives",
    "quality",
    "query_table",
    "refusals",
    "unit_gap",
    "value",
]
