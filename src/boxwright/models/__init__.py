# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Room of the networks: images in, raw `Predictions` out, and the weights on disk.

Lives here: `blocks.py` (shared parts), `backbones/`, `necks/`, `heads/` (one file per idea, each with a config that is
plain data), `detector.py` (config -> `Detector`), `weights.py` (safetensors in and out).
May import: `ops`, `structures`, `config`, `errors`. Never `losses`, `loading`, `datasets`,
`evaluation`, `viz` or anything above them.
Add one more backbone, neck or head: a file with `<Name>Config` (a component with its own `kind` and `build`), one more
member in the union of `backbones/__init__.py`, `necks/__init__.py` or `heads/__init__.py`, a test of the same name.
A new family is usually no code here at all, only numbers in `presets/`.
Must never happen here: a head that asks `self.training` or `self.export`, a decode, a loss, a device stored in a
module, a class-count quirk in a width, a pickle.
"""
