# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Which class is taken for which: the confusion matrix."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Int64

from boxwright.evaluation.measure import BOX, Measure
from boxwright.evaluation.scene import EvaluatedScene


def confusion_matrix(
    scenes: Iterable[EvaluatedScene],
    num_classes: int,
    *,
    conf: float = 0.25,
    iou: float = 0.45,
    measure: Measure = BOX,
) -> Int64[np.ndarray, "n n"]:
    """Counts of (predicted row, true column); the last index is the background.

    Detections scored above `conf` meet labels they overlap by more than `iou`, greedily by overlap, one to one and
    whatever their classes. A label nobody met counts as predicted background, a detection that met nobody as true
    background, also in images without a single meeting, unless more than `iou` of its area lies in an ignore region.

    Source: spec/recipe 7 (the corrected rule).
    """
    matrix = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    for scene in scenes:
        chosen = scene.scores > conf
        labels = scene.labels[chosen]
        found, true = _meet(measure.similarity(scene)[chosen], iou)
        np.add.at(matrix, (labels[found], scene.true_labels[true]), 1)
        matrix[-1] += np.bincount(np.delete(scene.true_labels, true), minlength=num_classes + 1)
        wrong = measure.covered(scene)[chosen] <= iou
        wrong[found] = False
        matrix[:, -1] += np.bincount(labels[wrong], minlength=num_classes + 1)
    return matrix


def _meet(overlap: np.ndarray, above: float) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of a greedy one-to-one matching by overlap; ties go to the lower row, then column."""
    rows, columns = np.nonzero(overlap > above)
    order = np.argsort(-overlap[rows, columns], kind="stable")
    free_rows, free_columns = np.ones(overlap.shape[0], bool), np.ones(overlap.shape[1], bool)
    found: list[int] = []
    true: list[int] = []
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if free_rows[row] and free_columns[column]:
            free_rows[row] = free_columns[column] = False
            found.append(row)
            true.append(column)
    return np.array(found, np.int64), np.array(true, np.int64)
