# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Assigners: (predictions, targets) -> pairs, without gradient.

Lives here: one frozen dataclass per assigner, and the one list of built-in assigners below.
May import: `ops`, `structures`.
To add one: the file, its line in `Assigner`, a brute-force reference in `tests/reference`, a test of the same name.
Never here: a loss value, a tensor of shape (images, objects, anchors), a host sync that the docstring does not name.
"""

from boxwright.losses.assign.task_aligned import TaskAligned

# One member so far; the second one makes this a union told apart by `kind`.
Assigner = TaskAligned
