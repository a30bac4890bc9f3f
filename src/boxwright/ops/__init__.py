# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Pure functions on tensors: geometry, grids, overlaps, sums over ranks.

Lives here: arithmetic that several rooms need and that holds no parameters and no state.
May import: `structures`, `errors`, `config`. `letterbox` imports no torch, so `boxwright check` stays light.
To add one: a function in the file of its idea, a doctest with numbers to check by hand, a test of the same name.
Never here: a hand-written gradient (see `kernels`), losses, models, files, gains, anything that knows a task; no
import in this file.
"""
