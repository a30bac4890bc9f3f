# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Room of the command line: words in, `boxwright.api` calls, tables and progress bars out.

Lives here: one file per command, the console and its progress bars. The only room that prints.
May import: everything; but only inside functions, so that `--help`, `version` and `check` need no torch.
Add a command: a function in a file of its own, one line in `app.py`, a test in `tests/test_cli.py`.
Must never happen here: arithmetic on tensors, a decision that `boxwright.api` could not take as well.
"""
