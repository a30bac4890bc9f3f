# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Label errors, ranked: where a trained model and the labels disagree, and how sure the model is.

Three kinds. Overlooked: a confident detection where there is no label. Swapped: a label that the model is sure to be
of another class. Badly placed: the model is sure of the object and draws its box elsewhere. A model that was trained on
the very labels has learned some of their errors: the ranking of a split it has not seen is the sharper one.

Source: the idea of asking a model's confidence about labels is that of confident learning, Northcutt et al. 2021,
arXiv:1911.00068; the three kinds are those of detection. Imports no torch.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from boxwright.auditor.labels import SplitLabels
from boxwright.datasets.sample import Split
from boxwright.table import Table

ErrorKind = Literal["overlooked", "swapped", "badly placed"]

SURE = 0.5  # score from which on a detection may contradict a label
LEAST = 0.05  # score of detections that are looked at
APART = 0.3  # IoU with every label below which a detection has no label
SAME = 0.6  # IoU from which on a detection and a label mean one object, and its box counts as well placed
ADVANTAGE = 0.25  # by which the other class must beat the label's own
COVERED = 0.5  # part of a detection inside a region where nothing is known
NO_OBJECT = -1


class FoundBoxes(NamedTuple):
    """Detections of an image, px of the original image, classes of the dataset."""

    boxes: Float64[np.ndarray, "D 4"]
    scores: Float64[np.ndarray, " D"]
    labels: Int64[np.ndarray, " D"]


class LabelError(NamedTuple):
    """One disagreement. `suspicion` is 0 to 1; `object` is the label's place in its image, -1 where there is none."""

    split: Split
    image: str
    object: int
    kind: ErrorKind
    suspicion: float
    labelled: str  # class, "" where nothing is
    detected: str
    score: float
    overlap: float
    label_box: tuple[float, float, float, float]  # px; zeros where nothing is labelled
    box: tuple[float, float, float, float]  # px, of the detection


def errors_of_image(
    labels: SplitLabels, image: int, found: FoundBoxes, ignore: Float64[np.ndarray, "R 4"] | None = None
) -> list[LabelError]:
    """Disagreements of one image, in no order. `ignore` are regions where nothing is known (crowds)."""
    rows = np.flatnonzero(labels.image == image)
    boxes, classes = labels.boxes[rows], labels.labels[rows]
    kept = found.scores >= LEAST
    found = FoundBoxes(found.boxes[kept], found.scores[kept], found.labels[kept])
    overlap = pairwise_iou(found.boxes, boxes)
    name = str(labels.images[image])

    def error(kind: ErrorKind, suspicion: float, one: int, other: int) -> LabelError:
        known = other != NO_OBJECT
        return LabelError(
            split=labels.split,
            image=name,
            object=other,
            kind=kind,
            suspicion=float(suspicion),
            labelled=labels.names[classes[other]] if known else "",
            detected=labels.names[found.labels[one]],
            score=float(found.scores[one]),
            overlap=float(overlap[one, other]) if known else float(overlap[one].max(initial=0.0)),
            label_box=_four(boxes[other]) if known else (0.0, 0.0, 0.0, 0.0),
            box=_four(found.boxes[one]),
        )

    made = [error("overlooked", found.scores[one], one, NO_OBJECT) for one in _overlooked(found, overlap, ignore)]
    for other in range(len(rows)):
        own, over = found.labels == classes[other], overlap[:, other]
        rival = _best(np.where(~own & (over >= SAME) & (found.scores >= SURE), found.scores, 0.0))
        support = float(found.scores[own & (over >= SAME)].max(initial=0.0))
        if rival is not None and found.scores[rival] - support > ADVANTAGE:
            made.append(error("swapped", found.scores[rival] - support, rival, other))
            continue
        mine = own & (overlap.argmax(axis=1) == other) if len(overlap) else own
        shifted = _best(np.where(mine & (over >= APART) & (over < SAME) & (found.scores >= SURE), found.scores, 0.0))
        if shifted is not None and not support:
            made.append(error("badly placed", found.scores[shifted] * (1 - over[shifted]), shifted, other))
    return made


def ranked(errors: Sequence[LabelError]) -> Table:
    """All disagreements, the most suspicious first."""
    ordered = sorted(errors, key=lambda error: -error.suspicion)
    plain = [name for name in LabelError._fields if not name.endswith("box")]
    columns: dict[str, list[object]] = {name: [getattr(error, name) for error in ordered] for name in plain}
    for name in ("label_box", "box"):
        for place, side in enumerate(("x1", "y1", "x2", "y2")):
            columns[f"{name}/{side}"] = [getattr(error, name)[place] for error in ordered]
    return Table(columns)


def _overlooked(found: FoundBoxes, overlap: np.ndarray, ignore: np.ndarray | None) -> list[int]:
    alone = (found.scores >= SURE) & (overlap.max(axis=1, initial=0.0) < APART)
    if ignore is not None and len(ignore):
        area = np.maximum((found.boxes[:, 2:] - found.boxes[:, :2]).prod(axis=1), 1e-9)
        alone &= (_shared(found.boxes, ignore) / area[:, None]).max(axis=1) < COVERED
    kept: list[int] = []
    for row in np.flatnonzero(alone)[np.argsort(-found.scores[alone], kind="stable")].tolist():
        if not kept or pairwise_iou(found.boxes[[row]], found.boxes[kept]).max() < SAME:
            kept.append(row)  # one of several detections of different classes at a place
    return kept


def _best(scores: np.ndarray) -> int | None:
    return int(scores.argmax()) if scores.max(initial=0.0) > 0 else None


def _four(box: np.ndarray) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = (float(side) for side in box)
    return x1, y1, x2, y2


def pairwise_iou(one: Float64[np.ndarray, "A 4"], other: Float64[np.ndarray, "B 4"]) -> Float64[np.ndarray, "A B"]:
    """IoU of all with all.

    >>> pairwise_iou(np.array([[0.0, 0, 2, 2]]), np.array([[1.0, 0, 3, 2]])).round(3).tolist()
    [[0.333]]
    """
    shared = _shared(one, other)
    areas = [(box[:, 2:] - box[:, :2]).prod(axis=1) for box in (one, other)]
    union: np.ndarray = areas[0][:, None] + areas[1][None] - shared
    overlap: np.ndarray = shared / np.maximum(union, 1e-9)
    return overlap


def _shared(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    shared: np.ndarray = np.maximum(high - low, 0).prod(axis=2)
    return shared
