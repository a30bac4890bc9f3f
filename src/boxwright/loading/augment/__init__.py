# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Room card: augmentation of training samples (numpy and OpenCV, no torch).

Lives here: how one training sample is drawn. `geometry` (one 3x3 matrix moves pixels; labels follow by
`datasets.instances`), `mosaic` (tiles and mixup), `copy_paste`, `cutmix`, `color` (HSV), `pipeline` (`AugmentConfig`
and the order of the steps); `classify` and `randaugment` for whole-image labels.
May import: `boxwright.ops.letterbox`, `boxwright.datasets` (`sample`, `instances`, `raster`, `policy`,
`formats.shapes`), `boxwright.config`, `boxwright.vocabulary`, `boxwright.errors`.
To add one more: a function that takes the image, the points and a `numpy.random.Generator` in its file, a field in
`AugmentConfig`, a line in `pipeline.build_sample`, a test of the same name.
Never here: a task, a model, torch, global random state, a write into an array that came from a cache.
"""
