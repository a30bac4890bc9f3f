# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Room card: drawn, datasets without a download, for the demo, docs and tests.

Lives here: `synthetic` (scenes and whole datasets), `drawn_shapes` (the figures), `drawn_labels` (their labels).
May import: datasets (types), vocabulary, errors.
To add a task: its figures in `drawn_shapes`, its labels in `drawn_labels`.
Never here: torch, a font or picture from elsewhere, a scene that depends on anything but its seed.
"""
