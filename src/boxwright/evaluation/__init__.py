# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Room card: how good detections are, given labels. Numbers and pictures; no model, no loss, no dataset.

Lives here: `config.py` (what counts), `evaluator.py` (objects: collects images, merges ranks, gives the result),
`image_labels.py` (the same of whole images), `result.py`, `measure.py` (how alike two things are), `run_lengths.py`
(masks as run lengths), `attributes.py`, `coco.py` (bridge to the COCO evaluator), `curves.py` (matching, curves,
operating point), `confusion.py`, `plots.py` (PNG), `scene.py` (one image's facts).
May import: `ops`, `structures`, `config`, `errors`. Never models, losses, loading, datasets, viz.
To add a metric: one file with a pure function of a list of `EvaluatedScene`, one line in `Evaluator.result`, and a test
against an independent implementation or hand-computed numbers.
Must never happen here: printing, a metric that depends on the number of ranks or on the order of images, two forms of
AP under one name.
"""
