# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Pose: boxes with keypoints, box and keypoint AP."""

from functools import partial

from boxwright.evaluation.evaluator import Evaluator
from boxwright.tasks.base import Task
from boxwright.tasks.postprocess import detections

POSE = Task(name="pose", results=detections, evaluator=partial(Evaluator, kinds=("box", "pose")))
