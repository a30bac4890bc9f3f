# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Room card: the inspector, which shows what every object teaches a model and what it never will.

Lives here: `table.py` (columns), `leaves.py` (outputs whose gradients can be read), `shares.py` (who pays each
contribution of a loss), `probe.py` (`inspect`: all of it for a batch), `joined.py` (many batches as one), `findings.py`
(what a person should know; what is not finite comes from `boxwright.faults`, as in the trainer), `tensors.py` (batches
of other code bases), `explain.py` (a loss step by step), `legend.py` (words, colours and marks), and what a person
looks at: `text.py` (terminal), `overlay.py` (pictures), `report.py` (one HTML file; `payload.py` and `pictures.py` fit
data and images into its budget, `assets/` is the page). `audit/` looks at labels alone.
May import: tasks and below; never engine, presets, api or cli, and engine never imports it: the command line hands the
trainer a callback.
Must never happen here: a second way to compute a loss. The criterion runs as in training; its parts are sorted.
"""
