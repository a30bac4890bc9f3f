# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""A dataset looked over before anybody trains on it: what is wrong, what is odd, and what can never be learned.

`run.py` does it all and gives an `Audit` (`result.py`). `checks.py` is the one list of checks, each a function of
`scene.Audited` that says where it found what (`label_checks.py`, `image_checks.py`, `split_checks.py`); `readers.py`
names what the dataset readers report. `learnable.py` asks an assigner's geometry, `images.py` looks at pixels,
`errors_ranked.py` asks a trained model's detections. `text.py` makes terminal tables, `files.py` and `gallery.py`
write. To add a check: its function, one line in CHECKS, `make docs`.
"""
