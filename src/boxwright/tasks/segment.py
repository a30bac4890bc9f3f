# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Instance segmentation: boxes with masks, box and mask AP."""

from functools import partial

from boxwright.evaluation.evaluator import Evaluator
from boxwright.tasks.base import Task
from boxwright.tasks.postprocess import detections

SEGMENT = Task(name="segment", results=detections, evaluator=partial(Evaluator, kinds=("box", "mask")))
