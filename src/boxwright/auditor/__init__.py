# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Room card: the auditor looks a dataset over before anybody trains: what is wrong, odd, and can never be learned.

Lives here: `run.py` does it all and gives an `Audit` (`result.py`). `checks.py` is the one list of checks, each a
function of `scene.Audited` that says where it found what (`label_checks.py`, `image_checks.py`, `split_checks.py`);
`labels.py` holds a split's labels as columns, `readers.py` names what the dataset readers report, `pairs.py` finds
boxes that overlap, `learnable.py` asks an assigner's geometry, `images.py` looks at pixels, `errors_ranked.py` asks a
trained model's detections. The room is not called `audit`: that is the function `boxwright.audit`.
May import: datasets, loading (anchors), losses (layouts, class weights), ops, table; never engine, presets, api or cli.
To add a check: its function, one line in CHECKS, `make docs`.
Must never happen here: a change to a dataset, words for the terminal or the page (see `reports`).
"""
