# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The heart: who learns from whom, and what it costs. Usable without our models, data or trainer.

Lives here: assigners (pairs), terms (weighted, normalised contributions), the criterion that joins them by role.
May import: `ops`, `structures`, `config`, `errors`.
To add a term: a dataclass in `terms/`, one line in `terms/__init__.py`, a test (reference value, gradcheck, P = 0).
To add an assigner: a file in `assign/`, one line in `assign/__init__.py`, a brute-force reference in the tests.
Never here: a model, a file, a reduction outside the criterion, a special case for "no objects", a sync in the step.
"""
