# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""`python -m boxwright` and the console script: the same command line (torchrun needs the first form)."""

from boxwright.cli.app import main

if __name__ == "__main__":
    main()
