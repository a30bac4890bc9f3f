# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Room card: data.

Lives here: everything between files on disk and a batch: formats, checks, images, caches, augmentation, loading.
May import: structures, config, errors, ops. `sample`, `policy`, `image_header`, `images`, `image_store`, `cache`,
`dataset`, `checks` and `formats` import no torch, so that `boxwright check` starts at once.
To add a dataset format: one file and one line in `formats`. To add an augmentation: see `augment`.
Never here: models, losses, metrics; writing to a user's files; pickles; network; anything dropped without a report.
"""
