# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Labels as columns, and small pictures on disk, for the tests of the audit."""

from pathlib import Path

import cv2
import numpy as np

from boxwright.auditor.images import look_at
from boxwright.auditor.labels import SplitLabels
from boxwright.auditor.learnable import CellRule, Setting, learnable
from boxwright.auditor.pairs import close_pairs
from boxwright.auditor.scene import Audited
from boxwright.datasets.policy import ImagePolicy

POLICY = ImagePolicy()


def labels_of(rows, *, images=None, size=(480, 640), names=("cat", "dog"), split="train", corners=None):
    """Columns from rows (image, class, x1, y1, x2, y2)."""
    table = np.array(rows, np.float64).reshape(-1, 6)
    table = table[np.argsort(table[:, 0], kind="stable")]
    count = int(table[:, 0].max(initial=-1)) + 1 if images is None else images
    return SplitLabels(
        split=split,
        names=tuple(names),
        images=tuple(Path(f"/data/{split}/{i}.jpg") for i in range(count)),
        sizes=np.tile(np.array(size, np.int64), (count, 1)),
        boxes=table[:, 2:],
        labels=table[:, 1].astype(np.int64),
        image=table[:, 0].astype(np.int64),
        corners=corners,
    )


def audited_of(*splits, pictures=None, reports=None, row_kinds=None, rule=None, imgsz=640):
    """What checks see of some splits."""
    held = {labels.split: labels for labels in splits}
    setting = Setting(rule or CellRule(strides=(8, 16, 32)), imgsz, model="yolov8n")
    return Audited(
        names=splits[0].names,
        root=Path("/data"),
        splits=held,
        pairs={split: close_pairs(labels) for split, labels in held.items()},
        learnable={split: learnable(labels, setting) for split, labels in held.items()},
        pictures=pictures or {},
        reports=reports or {},
        row_kinds=row_kinds or {},
    )


def ordinary(count=40, split="train", seed=0, names=("cat", "dog")):
    """Labels that nobody could object to: three objects of 100 px in each image, both classes alike."""
    rng = np.random.default_rng(seed)
    rows = []
    for image in range(count):
        for place in range(3):
            x, y = 10 + 205 * place + rng.uniform(0, 80), rng.uniform(10, 340)
            w, h = rng.uniform(90, 110, 2)
            rows.append((image, (image + place) % len(names), x, y, x + w, y + h))
    return labels_of(rows, split=split, names=names)


def photograph(seed, height=120, width=160):
    """A smooth picture of its own."""
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def pictures_of(folder, images, split="train"):
    """Columns of pictures written to a folder: arrays, or bytes as they are."""
    paths = []
    for place, image in enumerate(images):
        path = folder / f"{split}{place}.png"
        if isinstance(image, bytes):
            path.write_bytes(image)
        else:
            assert cv2.imwrite(str(path), image)
        paths.append(path)
    return look_at(split, paths, POLICY)
