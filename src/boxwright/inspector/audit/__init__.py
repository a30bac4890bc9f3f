# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""A dataset looked over before anybody trains on it: what is wrong, what is odd, and what can never be learned.

`run.py` does it all; `checks.py` is the one list of checks, each a function of `scene.Audited` that says where it found
what; `readers.py` names what the dataset readers report. `learnable.py` asks an assigner's geometry, `errors_ranked.py` a
trained model's detections. `report.py` prints and writes. To add a check: its function, one line in CHECKS, `make docs`.
"""
