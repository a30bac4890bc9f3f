# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Precision, recall and F1 as functions of the confidence, the operating point, and the 101-point curve AP.

The curve AP is not the COCO evaluator's: its matching and interpolation differ slightly, and a perfect detector gets
0.995. It is kept because other YOLO code reports it. Source: spec/recipe 7.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

from boxwright.evaluation.config import CurveForm
from boxwright.evaluation.measure import BOX, Measure
from boxwright.evaluation.scene import EvaluatedScene

THRESHOLDS = np.linspace(0.5, 0.95, 10)
POINTS = 1000  # confidences (and recalls) each curve is sampled at
SMOOTHING = 101  # samples of the box filter that finds the operating point
TINY = 1e-16  # keeps 0 / 0 at 0; the source's value, visible in no digit


@dataclass(frozen=True, slots=True)
class Curves:
    """Sampled curves of the K classes that have labels, at an overlap of 0.5, and their AP at every threshold."""

    classes: Int64[np.ndarray, " K"]
    axis: Float64[np.ndarray, " X"]  # 0..1: confidence for precision, recall and f1; recall for `pr`
    precision: Float64[np.ndarray, "K X"]
    recall: Float64[np.ndarray, "K X"]
    f1: Float64[np.ndarray, "K X"]
    pr: Float64[np.ndarray, "K X"]  # precision at each recall, made non-increasing
    ap: Float64[np.ndarray, "K T"]  # one per threshold 0.50, 0.55, ... 0.95
    best: int  # operating point: position in `axis` of the best smoothed class-mean F1

    @property
    def confidence(self) -> float:
        """The confidence of the operating point."""
        return float(self.axis[self.best])


def claims(
    scene: EvaluatedScene, threshold: float, measure: Measure = BOX
) -> tuple[Int64[np.ndarray, " k"], Int64[np.ndarray, " k"]]:
    """Which detection is right about which label at one threshold: rows of both.

    A detection claims the label of its class that it is most alike; among several claims on one label the detection
    with the highest score wins.
    """
    claimed, value = _wishes(scene, measure)
    rows = np.flatnonzero(value >= threshold)
    _, first = np.unique(claimed[rows], return_index=True)
    return rows[first], claimed[rows[first]]


def match(
    scene: EvaluatedScene, thresholds: np.ndarray = THRESHOLDS, measure: Measure = BOX
) -> Bool[np.ndarray, "n T"]:
    """Which detections are right, at each threshold of the measure; see `claims`."""
    right = np.zeros((len(scene.scores), len(thresholds)), bool)
    claimed, value = _wishes(scene, measure)
    for t, threshold in enumerate(thresholds):
        rows = np.flatnonzero(value >= threshold)
        _, first = np.unique(claimed[rows], return_index=True)
        right[rows[first], t] = True
    return right


def _wishes(scene: EvaluatedScene, measure: Measure) -> tuple[np.ndarray, np.ndarray]:
    """The label each detection is most alike, among the counted ones of its class, and how much; -1 without any."""
    if not len(scene.scores) or not len(scene.true_labels):
        return np.zeros(len(scene.scores), np.int64), np.full(len(scene.scores), -1.0)
    fits = (scene.labels[:, None] == scene.true_labels[None]) & measure.counted(scene)[None]
    alike = np.where(fits, measure.similarity(scene, fits), -1.0)
    return alike.argmax(axis=1), alike.max(axis=1)


def curves_of(scenes: Sequence[EvaluatedScene], form: CurveForm = "2026", measure: Measure = BOX) -> Curves:
    """The curves of all scenes together."""
    nothing = [np.zeros((0, len(THRESHOLDS)), bool)]
    right = [match(scene, THRESHOLDS, measure) for scene in scenes]
    ignored = [~hit & (measure.covered(scene)[:, None] >= THRESHOLDS) for hit, scene in zip(right, scenes, strict=True)]
    return curves_from_matches(
        np.concatenate(right or nothing),
        np.concatenate([scene.scores for scene in scenes] or [np.zeros(0)]),
        np.concatenate([scene.labels for scene in scenes] or [np.zeros(0, np.int64)]),
        np.concatenate([scene.true_labels[measure.counted(scene)] for scene in scenes] or [np.zeros(0, np.int64)]),
        form,
        np.concatenate(ignored or nothing),
    )


def curves_from_matches(
    right: Bool[np.ndarray, "n T"],
    scores: Float[np.ndarray, " n"],
    labels: Int64[np.ndarray, " n"],
    true_labels: Int64[np.ndarray, " m"],
    form: CurveForm = "2026",
    ignored: Bool[np.ndarray, "n T"] | None = None,
) -> Curves:
    """The curves, given which detections are right and which do not count; only classes with labels take part."""
    order = np.argsort(-scores, kind="stable")
    right, scores, labels = right[order], scores[order].astype(np.float64), labels[order]
    counted = np.ones_like(right) if ignored is None else ~ignored[order]
    classes, counts = np.unique(true_labels, return_counts=True)
    axis = np.linspace(0, 1, POINTS)
    precision, recall, pr = (np.zeros((len(classes), POINTS)) for _ in range(3))
    ap = np.zeros((len(classes), right.shape[1]))
    for k, (label, count) in enumerate(zip(classes, counts, strict=True)):
        mine = labels == label
        for t in range(ap.shape[1]):
            held = mine & counted[:, t]
            if not held.any():
                continue
            recalls, precisions = _ranked(right[held, t], int(count))
            ap[k, t] = average_precision(recalls, precisions, form)
            if t == 0:
                recall[k] = np.interp(-axis, -scores[held], recalls, left=0)
                precision[k] = np.interp(-axis, -scores[held], precisions, left=1)
                pr[k] = np.interp(axis, *_envelope(recalls, precisions, form))
    f1 = 2 * precision * recall / (precision + recall + TINY)
    best = int(_smooth(f1.mean(axis=0)).argmax()) if len(classes) else 0
    return Curves(classes.astype(np.int64), axis, precision, recall, f1, pr, ap, best)


def _ranked(right: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Recall and precision after each detection, best first."""
    hits = right.cumsum()
    return hits / (count + TINY), hits / np.arange(1, len(hits) + 1)


def average_precision(
    recall: Float[np.ndarray, " n"], precision: Float[np.ndarray, " n"], form: CurveForm = "2026"
) -> float:
    """Area under the precision envelope, from 101 recalls by trapezoids.

    "legacy" lets precision fall in a straight line from the last recall to (1, 0), which overstates AP whenever not
    every label is found; "2026" drops to 0 right after the last recall. Never mix the two in one table.
    """
    at = np.linspace(0, 1, 101)
    values = np.interp(at, *_envelope(recall, precision, form))
    return float((np.diff(at) * (values[1:] + values[:-1]) / 2).sum())


def _envelope(recall: np.ndarray, precision: np.ndarray, form: CurveForm) -> tuple[np.ndarray, np.ndarray]:
    drop = [recall[-1]] if form == "2026" and len(recall) else []
    x = np.concatenate(([0.0], recall, drop, [1.0]))
    y = np.concatenate(([1.0], precision, [0.0] * len(drop), [0.0]))
    return x, np.maximum.accumulate(y[::-1])[::-1]


def _smooth(values: np.ndarray) -> np.ndarray:
    padded = np.pad(values, SMOOTHING // 2, mode="edge")
    return np.convolve(padded, np.full(SMOOTHING, 1 / SMOOTHING), mode="valid")
