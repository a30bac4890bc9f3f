# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Room card: datasets, from files on disk to records with labels in pixels of their image.

Lives here: `formats/` (one file a format, read and written), `convert` and `tiles` (jobs over formats), `sample` (the
records), `codes` (what can be found, in words), `policy` (what a user may choose), `images` and `image_header`, `cache`
with `instance_arrays`, `dataset` (a split, read and checked), `report`, `checks`, `instances` (labels that move) and
`raster` (outlines as pixels).
May import: structures, config, vocabulary, errors, ops. No torch anywhere, so that `boxwright check` starts at once.
To add a dataset format: one file and one line in `formats`.
Never here: models, losses, metrics; writing to a user's files; pickles; network; anything dropped without a report.
"""
