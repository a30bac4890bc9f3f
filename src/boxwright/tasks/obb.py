# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Oriented detection: boxes with an angle, oriented AP (exact overlap of the rectangles)."""

from functools import partial

from boxwright.evaluation.evaluator import Evaluator
from boxwright.tasks.base import Task
from boxwright.tasks.postprocess import detections

OBB = Task(name="obb", results=detections, evaluator=partial(Evaluator, kinds=("obb",)))
