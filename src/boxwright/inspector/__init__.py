# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Room card: the inspector, which shows what every object teaches a model.

Lives here: `leaves.py` (outputs whose gradients can be read), `shares.py` (who pays each contribution of a loss),
`part.py` (a prediction with its pairs and shares), `columns.py` and `fates.py` (tables of them), `probe.py` (`inspect`:
all of it for a batch), `joined.py` (many batches as one), `rollups.py`, `findings.py` (what a person should know; what
is not finite comes from `boxwright.faults`, as in the trainer), `tensors.py` (batches of other code bases) and
`explain.py` (a loss step by step). What a person looks at is in `reports`.
May import: tasks and below; never engine, presets, api or cli, and engine never imports it: the command line hands the
trainer a callback.
Must never happen here: a second way to compute a loss. The criterion runs as in training; its parts are sorted.
"""
