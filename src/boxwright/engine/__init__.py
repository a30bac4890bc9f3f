# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The room that runs things: training, validation during it, prediction.

What lives here: `recipe` (one run as a tree of configs), `trainer` (the loop), its parts (`assemble`,
`step`, `optim`, `ema`, `records`, `checkpoint`, `distributed`, `precision`, `memory`, `nonfinite`, `runfolder`,
`meter`, `curves`, `pictures`), `logs` (the one way progress leaves this room), `validator`, `predictor` and `sources`.
May import: tasks, models, losses, evaluation, loading, datasets, viz, ops, structures, config, errors; never presets,
export or cli.
To add an optimizer: one line in `optim.OPTIMIZERS` and its name in `recipe.OptimizerName`. To add a training setting: a
field of `TrainConfig` with its default and, if it changes the numbers, nothing else; resume compares whole recipes.
Must never happen here: printing (a `Listener` is told instead), a formula of a loss or of an overlap, a model's inside,
a write by any rank but 0 (one exception: a rank that meets a non-finite loss saves its own batch), an overwritten run.
"""
