# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Room card: everything after the forward pass, and what of it each task takes.

Lives here: `base.py` (the `Task` type), `postprocess.py` (raw predictions -> kept rows -> Detections), `extras.py`
(masks, keypoints, oriented boxes and attributes of kept rows), `image_classes.py` (labels of whole images), and below
the table of all tasks, made of their facts.
May import: evaluation, ops and below. Never engine or presets.
To add a task: its row in `vocabulary.TASKS`; where it finds something new, a part of `extras.py` and a kind in
`evaluation/measure.py`.
Must never happen here: a family's name, a task's name, a second decode, a second NMS.
"""

from collections.abc import Mapping
from functools import partial

from boxwright.errors import ConfigError
from boxwright.evaluation.evaluator import Evaluator
from boxwright.evaluation.image_labels import ImageEvaluator
from boxwright.evaluation.measure import ObjectKind
from boxwright.tasks.base import Task
from boxwright.tasks.image_classes import classifications
from boxwright.tasks.postprocess import detections
from boxwright.vocabulary import TASKS, TaskFacts, TaskName


def compared_kinds(facts: TaskFacts) -> tuple[ObjectKind, ...]:
    """What detections of a task are scored by; the first is what its confusion matrix goes by.

    >>> compared_kinds(TASKS["pose"]), compared_kinds(TASKS["obb"])
    (('box', 'pose'), ('obb',))
    """
    if facts.oriented:
        return ("obb",)
    masks: tuple[ObjectKind, ...] = ("mask",) if facts.outlines else ()
    keypoints: tuple[ObjectKind, ...] = ("pose",) if facts.keypoints else ()
    return ("box", *masks, *keypoints)


def _task(name: TaskName, facts: TaskFacts) -> Task:
    if facts.whole_image:
        return Task(name, classifications, ImageEvaluator)
    return Task(name, detections, partial(Evaluator, kinds=compared_kinds(facts)))


_BY_NAME: Mapping[str, Task] = {name: _task(name, facts) for name, facts in TASKS.items()}


def task_named(name: str) -> Task:
    """The task of a name of `vocabulary.TaskName`.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in _BY_NAME:
        raise ConfigError(f"task: expected one of {', '.join(_BY_NAME)}, got '{name}'")
    return _BY_NAME[name]
