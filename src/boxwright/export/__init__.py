# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Room card: export, networks as files for other runtimes, and those files as networks.

Lives here: `export` (ONNX and TorchScript), `onnx_graph` (suppression inside the graph), `runtime` (an exported file
that predicts and validates like a network), `verify` (its outputs compared with the weights').
May import: engine (recipes), drawn and all below; never presets, api or cli.
To add a format: its writer in `export.py`, its reader in `runtime.py`, a line in `SUFFIXES`, a comparison in its test.
Never here: a second decode or suppression in Python, a file that does not say what its outputs mean.
"""
