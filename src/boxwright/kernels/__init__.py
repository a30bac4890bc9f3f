# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Room card: kernels, the fast forms of the arithmetic inside a training step.

Lives here: hand-written gradients (`anchor_ciou`, `bins`, `entries`, `keypoint_sums`, `label_bce`, `mask_sums` with
`mask_tiles`), sums of `softplus`, memory order (`rows`, `table`) and cuts into pieces that fit a cache (`chunks`).
May import: ops, structures, errors. To know what is computed, read `ops` and `losses` and skip this room.
To add one: the function, and a test that holds value and gradient to the plain form.
Never here: a meaning that is written nowhere else, a gain, a model, a file.
"""
