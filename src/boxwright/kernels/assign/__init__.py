# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Faster forms of assigners, each a function of the assigner's kind in a file of the assigner's name.

`kernels/assign/task_aligned.py` has `task_aligned(assigner, preds, targets)`, which gives the pairs of calling the
assigner. Beside it may stand `prepare(assigner, targets, grid)`, which lays out on the host what labels and grid
decide, and `assign_many(assigner, layers, targets)` for several predictions of one step.
On an accelerator a faster form waits for nothing that its docstring does not name: it may return unused slots.
"""
