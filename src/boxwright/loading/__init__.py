# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Room card: loading, from records to batches.

Lives here: `image_store` (decoded images), `augment/` (training samples), `targets` and `collate` (labels as tensors),
`plan` (which images when), `loader` (processes that make batches), `autoanchor` (anchors that fit the labels).
May import: datasets, structures, config, vocabulary, results, errors, ops. To add an augmentation: see `augment`.
Never here: reading a label file, a model, a loss, a metric, global random state.
"""
