# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Whether anchors fit the labels of a dataset, and anchors that fit better. Imports no torch.

Anchors and labels are (width, height) in pixels of the network input. A label can be learned from an anchor when
neither side differs by the factor `ratio` or more; best possible recall is the share of labels with such an anchor.

Source: spec/recipe 5; clustering of sizes: YOLO9000, Redmon and Farhadi 2016, arXiv:1612.08242.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64
from scipy.cluster.vq import kmeans

from boxwright.datasets.sample import Record
from boxwright.errors import ConfigError

Anchors = tuple[tuple[tuple[float, float], ...], ...]  # (width, height) of every anchor of each level, fine to coarse
Sizes = Float64[np.ndarray, "n 2"]  # px, (width, height)

MIN_SIDE = 2.0  # px; of an anchor, and a label with no longer side is not fitted to
SMALL_SIDE = 3.0  # px; the report counts labels with a shorter side
GENERATIONS = 1000
SHARE_CHANGED = 0.9  # of all sides, in a generation
SPREAD = 0.1  # of the factors that change them
FACTORS = (0.3, 3.0)
RESTARTS = 30  # of the clustering
# Deviation: fitting looks at this many labels, drawn at random, so that it takes seconds on any dataset; more do not
# move the result. Recall is that of all labels.
MAX_FITTED = 10_000


class AnchorFit(NamedTuple):
    """How well anchors fit labels."""

    recall: float  # best possible: share of labels with an anchor within the ratio
    above: float  # anchors within the ratio, mean over labels


@dataclass(frozen=True, slots=True)
class AnchorReport:
    """What a check of anchors found; without labels nothing is measured and nothing changes."""

    anchors: Anchors  # px; those to train with
    changed: bool
    labels: int
    small_labels: int  # with a side below SMALL_SIDE
    before: AnchorFit | None
    after: AnchorFit | None  # of `anchors`
    rejected: AnchorFit | None = None  # of fitted anchors that were no better

    def summary(self) -> str:
        """One or two sentences for the console."""
        if self.before is None or self.after is None:
            return "anchors: no labels to compare with; kept as they are"
        text = f"anchors: best possible recall {_say(self.before)} on {self.labels} labels"
        if self.changed:
            rounded = "; ".join(" ".join(f"{w:g},{h:g}" for w, h in level) for level in self.anchors)
            text += f"; fitted anew: {_say(self.after)}: {rounded}"
        elif self.rejected is not None:
            text += f"; fitting found no better ones ({_say(self.rejected)}), kept as they are"
        if self.small_labels:
            text += f". {self.small_labels} labels have a side below {SMALL_SIDE:g} px"
        return text


def label_sizes(records: Sequence[Record], imgsz: int, *, seed: int = 0) -> Sizes:
    """The size of every label when its image's long side is `imgsz` px, varied by up to 10 % from image to image."""
    factors = np.random.default_rng(seed).uniform(0.9, 1.1, size=len(records))
    found = [np.zeros((0, 2))]
    for record, factor in zip(records, factors.tolist(), strict=True):
        boxes = record.instances.boxes.astype(np.float64)
        found.append((boxes[:, 2:] - boxes[:, :2]) * (imgsz / max(record.size) * factor))
    return np.concatenate(found)


def best_possible_recall(sizes: Sizes, anchors: Anchors | Sizes, *, ratio: float = 4.0) -> AnchorFit:
    """How well anchors fit labels.

    >>> best_possible_recall(np.array([[10.0, 10.0], [10.0, 90.0]]), (((20.0, 20.0), (12.0, 30.0)),))
    AnchorFit(recall=1.0, above=1.5)

    Raises:
        ConfigError: there are no labels.
    """
    if not len(sizes):
        raise ConfigError("anchors: expected at least one label to measure the recall on, got none")
    fit = _worst_ratio(sizes, flat(anchors)) > 1 / ratio
    return AnchorFit(recall=float(fit.any(axis=1).mean()), above=float(fit.sum(axis=1).mean()))


def check_anchors(
    sizes: Sizes, anchors: Anchors, *, ratio: float = 4.0, seed: int = 0, threshold: float = 0.98
) -> AnchorReport:
    """The anchors to train with: those given where they fit the labels, otherwise fitted ones where these fit better.

    The same arguments give the same result. Labels without area are left out.

    Args:
        sizes: (width, height) of the labels, see `label_sizes`.
        anchors: those of the model.
        ratio: of the assigner.
        seed: of the run.
        threshold: best possible recall above which nothing is fitted.
    """
    sizes = sizes[(sizes > 0).all(axis=1)]
    small = int((sizes < SMALL_SIDE).any(axis=1).sum())
    if not len(sizes):
        return AnchorReport(anchors, False, 0, 0, None, None)
    before = best_possible_recall(sizes, anchors, ratio=ratio)
    if before.recall > threshold or not _fittable(sizes).any():
        return AnchorReport(anchors, False, len(sizes), small, before, before)
    fitted = fit_anchors(sizes, len(anchors), len(anchors[0]), ratio=ratio, seed=seed)
    after = best_possible_recall(sizes, fitted, ratio=ratio)
    if after.recall > before.recall:
        return AnchorReport(fitted, True, len(sizes), small, before, after)
    return AnchorReport(anchors, False, len(sizes), small, before, before, rejected=after)


def fit_anchors(
    sizes: Sizes, levels: int, per_level: int, *, ratio: float = 4.0, seed: int = 0, generations: int = GENERATIONS
) -> Anchors:
    """Anchors for these labels: cluster centres, improved by random changes that are kept where they help.

    They ascend by area, and sides have two decimals. Few or equal labels give anchors too.

    Raises:
        ConfigError: there are no labels with a side of at least 2 px.
    """
    rng = np.random.default_rng(seed)
    usable = sizes[_fittable(sizes)]
    if not len(usable):
        raise ConfigError(f"anchors: expected labels with a side of at least {MIN_SIDE:g} px to fit to, got none")
    if len(usable) > MAX_FITTED:
        usable = usable[rng.choice(len(usable), MAX_FITTED, replace=False)]
    chosen = _evolved(usable, _centres(usable, levels * per_level, rng), ratio, generations, rng)
    chosen = np.round(chosen[np.argsort(chosen.prod(axis=1), kind="stable")], 2)
    rows = [(float(width), float(height)) for width, height in chosen]
    return tuple(tuple(rows[i : i + per_level]) for i in range(0, len(rows), per_level))


def flat(anchors: Anchors | Sizes) -> Sizes:
    """All anchors of all levels, one per row."""
    return np.array([pair for level in anchors for pair in level] if isinstance(anchors, tuple) else anchors, float)


def _fittable(sizes: np.ndarray) -> np.ndarray:
    return np.logical_and((sizes >= MIN_SIDE).any(axis=1), (sizes > 0).all(axis=1))


def _worst_ratio(sizes: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """(labels, anchors): the smaller side over the larger one, for width or height, whichever is worse."""
    share = sizes[:, None] / anchors
    worst: np.ndarray = np.minimum(share, 1 / share).min(axis=2)
    return worst


def _centres(sizes: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Cluster centres; ascending random sides where there are too few different labels for that."""
    spread = sizes.std(axis=0)
    spread[spread == 0] = 1
    if len(np.unique(sizes, axis=0)) >= count:
        found: np.ndarray = kmeans(sizes / spread, count, iter=RESTARTS, seed=rng)[0] * spread
        if len(found) == count:
            return found.clip(min=MIN_SIDE)
    return np.sort(rng.uniform(MIN_SIDE, max(float(sizes.max()), MIN_SIDE), 2 * count)).reshape(count, 2)


def _evolved(
    sizes: np.ndarray, anchors: np.ndarray, ratio: float, generations: int, rng: np.random.Generator
) -> np.ndarray:
    wide, high = np.log(sizes).T[..., None]

    def fitness(candidates: np.ndarray) -> float:
        # By logarithms, several times faster than by ratios.
        width, height = np.log(candidates).T
        apart = np.maximum(np.abs(wide - width), np.abs(high - height)).min(axis=1)
        return float(np.exp(-apart[apart < np.log(ratio)]).sum() / len(sizes))

    best = fitness(anchors)
    for _ in range(generations):
        candidates = np.maximum(anchors * _factors(anchors.shape, rng), MIN_SIDE)
        value = fitness(candidates)
        if value > best:
            anchors, best = candidates, value
    return anchors


def _factors(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    while True:
        chosen = rng.random(shape) < SHARE_CHANGED
        factors: np.ndarray = np.clip(1 + chosen * rng.random() * rng.standard_normal(shape) * SPREAD, *FACTORS)
        if (factors != 1).any():
            return factors


def _say(fit: AnchorFit) -> str:
    return f"{fit.recall:.4f} ({fit.above:.2f} anchors per label)"
