# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Room card: what is special about each task, one file and one `Task` value each.

Lives here: `base.py` (the `Task` type), `postprocess.py` (raw predictions -> kept rows -> Detections), `extras.py`
(masks, keypoints, oriented boxes and attributes of kept rows), and a file for each task.
May import: evaluation, ops and below. Never engine or presets.
To add a task: `tasks/<name>.py` with one `Task` value, one name in `TASKS` below, a test of the same name.
Must never happen here: a family's name, a second decode, a second NMS.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from boxwright.errors import ConfigError

if TYPE_CHECKING:
    from boxwright.tasks.base import Task

TASKS = ("detect", "segment", "pose", "obb", "classify")  # module names; `tasks/<name>.py` holds the value `<NAME>`


def task_named(name: str) -> "Task":
    """The task of a name of `vocabulary.TaskName`.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in TASKS:
        raise ConfigError(f"task: expected one of {', '.join(TASKS)}, got '{name}'")
    task: Task = getattr(import_module(f"boxwright.tasks.{name}"), name.upper())
    return task
