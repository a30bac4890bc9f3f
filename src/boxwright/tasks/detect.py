# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Detection: axis-aligned boxes, box AP."""

from functools import partial

from boxwright.evaluation.evaluator import Evaluator
from boxwright.tasks.base import Task
from boxwright.tasks.postprocess import detections

DETECT = Task(name="detect", results=detections, evaluator=partial(Evaluator, kinds=("box",)))
