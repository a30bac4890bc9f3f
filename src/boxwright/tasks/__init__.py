# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Room card: what is special about each task, one file and one `Task` value each.

Lives here: `base.py` (the `Task` type), `postprocess.py` (raw predictions -> kept rows -> Detections), `detect.py`.
May import: models, losses, evaluation, data types, ops and below. Never engine or presets.
To add a task: `tasks/<name>.py` with one `Task` value, one name in `TASKS` below, a test of the same name.
Must never happen here: a family's name, a second decode, a second NMS.
"""

TASKS = ("detect",)  # module names; `tasks/<name>.py` holds the value `<NAME>`
