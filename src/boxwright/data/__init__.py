# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Room card: data, the import paths of the rooms that were once one, kept for code that uses them.

Lives here: `synthetic`, `dataset`, `formats` and `loader`, each with the names that earlier documentation showed.
May import: drawn, datasets, loading. Nothing of the package imports this room, and this file imports nothing: whoever
asks for `formats` gets no torch.
Must never happen here: a definition, a name that was never documented under its old path.
"""
