# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Checks of splits against each other, of how often classes occur, and of who can be learned. Imports no torch."""

from collections.abc import Iterator

import numpy as np

from boxwright.auditor.labels import SplitLabels
from boxwright.auditor.learnable import CellRule, Learnable, Remedy, size_words, sizes_of
from boxwright.auditor.scene import Audited, Hit, counted, image_spots, object_spots, share
from boxwright.datasets.codes import Severity
from boxwright.datasets.sample import Split

RARE = 20  # objects of the train split; with fewer a class is hardly learned
UNEVEN = 10.0  # times that the most frequent class has the objects of another
BACKGROUND = 0.5  # share of images without an object from which on it is a warning
SKEW = 0.2  # half the sum of differences between two splits' shares of classes
ENOUGH = 100  # objects of a split whose shares mean something
SHIFT = 2.0  # times that objects of a class are larger in another split
ENOUGH_OF_CLASS = 50
NAMED = 8  # classes named in a message


def split_missing(audited: Audited) -> Iterator[Hit]:
    """No split to validate on."""
    if audited.splits and "val" not in audited.splits:
        have = ", ".join(audited.splits)
        yield Hit((), 1, f"there is no val split (there is {have}): quality cannot be measured during training")


def names_alike(audited: Audited) -> Iterator[Hit]:
    """Class names that differ only in case, spaces or a plural s."""
    groups: dict[str, list[str]] = {}
    for name in dict.fromkeys(audited.names):
        key = "".join(letter for letter in name.casefold() if letter.isalnum()).removesuffix("s")
        groups.setdefault(key, []).append(name)
    found = [names for key, names in groups.items() if key and len(names) > 1]
    if found:
        yield Hit((), len(found), "; ".join(" and ".join(repr(name) for name in names) for names in found))


def class_without_objects(audited: Audited) -> Iterator[Hit]:
    """Classes that are never trained."""
    train = audited.splits.get("train")
    if train is None or not train.class_counts.sum():
        return
    absent = np.flatnonzero(train.class_counts == 0)
    if not len(absent):
        return
    elsewhere = np.sum([labels.class_counts for labels in audited.splits.values()], axis=0)
    needed = [row for row in absent.tolist() if elsewhere[row]]
    if needed:
        message = f"{_classes(train, needed)} without an object in train, but with objects in another split"
        yield Hit(("train",), len(needed), message, severity="warning")
    never = [row for row in absent.tolist() if not elsewhere[row]]
    if never:
        yield Hit(("train",), len(never), f"{_classes(train, never)} without an object in any split")


def class_missing_in_split(audited: Audited) -> Iterator[Hit]:
    """Classes that are trained and never measured."""
    train = audited.splits.get("train")
    if train is None:
        return
    for split, labels in audited.splits.items():
        absent = np.flatnonzero((train.class_counts > 0) & (labels.class_counts == 0))
        if split != "train" and labels.class_counts.sum() and len(absent):
            yield Hit(
                (split,), len(absent), f"{_classes(train, absent.tolist())} of train without an object in {split}"
            )


def class_rare(audited: Audited) -> Iterator[Hit]:
    """Classes with few objects to learn from."""
    train = audited.splits.get("train")
    if train is None:
        return
    counts = train.class_counts
    rare = np.flatnonzero((counts > 0) & (counts < RARE))
    rare = rare[np.argsort(counts[rare], kind="stable")]
    if len(rare):
        words = ", ".join(f"{train.names[row]} {counts[row]}" for row in rare[:NAMED])
        more = ", ..." if len(rare) > NAMED else ""
        message = f"{counted(len(rare), 'class', 'classes')} with fewer than {RARE} objects in train: {words}{more}"
        yield Hit(("train",), len(rare), message)


def class_imbalance(audited: Audited) -> Iterator[Hit]:
    """One class with many times the objects of others."""
    labels = audited.splits.get("train") or next(iter(audited.splits.values()), None)
    if labels is None:
        return
    counts = labels.class_counts
    most = int(counts.argmax()) if len(counts) else 0
    behind = [row for row in np.argsort(counts, kind="stable").tolist() if 0 < counts[row] * UNEVEN <= counts[most]]
    if behind:
        words = ", ".join(
            f"{labels.names[row]} ({counts[row]}, {counts[most] / counts[row]:.3g} times)" for row in behind[:NAMED]
        )
        more = ", ..." if len(behind) > NAMED else ""
        part = 100 * counts[most] / counts.sum()
        message = (
            f"{labels.names[most]} has {counts[most]} objects in {labels.split}, {part:.0f} % of all, and "
            f"{UNEVEN:g} times or more those of {counted(len(behind), 'class', 'classes')}: {words}{more}"
        )
        yield Hit((labels.split,), len(behind), message)


def background(audited: Audited) -> Iterator[Hit]:
    """Images without objects."""
    for split, labels in audited.splits.items():
        if labels.image_labels is not None or not labels.images:
            continue
        rows = np.flatnonzero(labels.per_image == 0)
        if len(rows):
            message = f"{share(len(rows), len(labels.images))} images have no object"
            severity: Severity | None = "warning" if len(rows) > BACKGROUND * len(labels.images) else None
            yield Hit((split,), len(rows), message, image_spots(labels, rows), severity)


def skew(audited: Audited) -> Iterator[Hit]:
    """Splits whose classes occur in other shares."""
    train = audited.splits.get("train")
    if train is None or train.class_counts.sum() < ENOUGH:
        return
    here = train.class_counts / train.class_counts.sum()
    for split, labels in audited.splits.items():
        if split == "train" or labels.class_counts.sum() < ENOUGH:
            continue
        there = labels.class_counts / labels.class_counts.sum()
        apart = float(np.abs(here - there).sum() / 2)
        if apart > SKEW + _noise(here, int(train.class_counts.sum()), int(labels.class_counts.sum())):
            most = np.argsort(-np.abs(here - there), kind="stable")[:3]
            words = ", ".join(f"{train.names[row]} {100 * here[row]:.0f} and {100 * there[row]:.0f} %" for row in most)
            message = f"the shares of classes in train and {split} differ by {100 * apart:.0f} %: {words}"
            yield Hit(("train", split), int((np.abs(here - there) > SKEW / 2).sum()) or 1, message)


def _noise(shares: np.ndarray, here: int, there: int) -> float:
    """How far the shares of two random draws from one pool differ, half the sum over classes, in expectation."""
    deviation = np.sqrt(shares * (1 - shares) * (1 / here + 1 / there))
    return float(deviation.sum() * np.sqrt(2 / np.pi) / 2)


def size_shift(audited: Audited) -> Iterator[Hit]:
    """Classes whose objects are larger in one split."""
    train = audited.splits.get("train")
    if train is None:
        return
    here = _middles(train)
    for split, labels in audited.splits.items():
        if split == "train":
            continue
        ratio = _middles(labels) / here
        rows = np.flatnonzero((ratio > SHIFT) | (ratio < 1 / SHIFT))
        if len(rows):
            words = ", ".join(f"{train.names[row]} {ratio[row]:.1f} times" for row in rows[:NAMED])
            yield Hit(("train", split), len(rows), f"sides of objects in {split} against those in train: {words}")


def _middles(labels: SplitLabels) -> np.ndarray:
    """Median side of each class as a part of the image; NaN where objects are few."""
    side = np.sqrt(np.maximum((labels.wh / labels.sizes[labels.image][:, ::-1]).prod(axis=1), 0))
    order = np.argsort(labels.labels, kind="stable")
    ends = np.searchsorted(labels.labels[order], np.arange(1, len(labels.names)))
    return np.array(
        [np.median(side[rows]) if len(rows) >= ENOUGH_OF_CLASS else np.nan for rows in np.split(order, ends)]
    )


def _classes(labels: SplitLabels, rows: list[int]) -> str:
    names = ", ".join(labels.names[row] for row in rows[:NAMED]) + (", ..." if len(rows) > NAMED else "")
    return f"{counted(len(rows), 'class', 'classes')} ({names})"


# -- learning ------------------------------------------------------------------------------------------------------


def no_candidate(audited: Audited) -> Iterator[Hit]:
    """Objects that nothing can learn from."""
    for split, found in audited.learnable.items():
        rows = np.flatnonzero(found.lost)
        if len(rows):
            labels = audited.splits[split]
            rows = rows[np.argsort(found.side[rows], kind="stable")]
            message = (
                f"{share(len(rows), len(labels))} objects get no candidate from {_model(found)} at "
                f"{found.setting.imgsz} px ({_sizes(found, rows)}){_luck(found, rows)}{_remedies(found, 1)}"
            )
            texts = [f"{found.side[row]:.1f} px at {found.setting.imgsz} px" for row in rows[:NAMED]]
            yield Hit((split,), len(rows), message, object_spots(labels, rows, texts))


def few_candidates(audited: Audited) -> Iterator[Hit]:
    """Objects with fewer candidates than the assigner asks for."""
    for split, found in audited.learnable.items():
        rows = np.flatnonzero(found.few)
        if len(rows):
            labels, asked = audited.splits[split], found.setting.rule.asked
            message = (
                f"{share(len(rows), len(labels))} objects get fewer than the {asked} candidates that {_model(found)} "
                f"asks for at {found.setting.imgsz} px ({_sizes(found, rows)}){_remedies(found, asked)}"
            )
            yield Hit((split,), len(rows), message)


def anchors_misfit(audited: Audited) -> Iterator[Hit]:
    """Anchors that do not fit the labels."""
    for split, found in _trained(audited):
        if found.anchors is not None and found.anchors.changed:
            yield Hit((split,), int(found.lost.sum()), found.anchors.summary())


def _trained(audited: Audited) -> Iterator[tuple[Split, Learnable]]:
    if "train" in audited.learnable:
        yield "train", audited.learnable["train"]


def _model(found: Learnable) -> str:
    return found.setting.model or "the assigner"


def _luck(found: Learnable, rows: np.ndarray) -> str:
    """Augmentation moves objects: who is lost at one place may be met at another."""
    if not isinstance(found.setting.rule, CellRule):
        return ""
    return f"; at a random place {100 * found.luck[rows].mean():.0f} % of them would get one"


def _sizes(found: Learnable, rows: np.ndarray) -> str:
    counts = np.bincount(sizes_of(found.side[rows]))
    return ", ".join(f"{count} {size_words(i)}" for i, count in enumerate(counts.tolist()) if count)


def _remedies(found: Learnable, need: int) -> str:
    held = [remedy for remedy in found.remedies if remedy.need == need and remedy.helped]
    return "" if not held else ". Helped by: " + "; ".join(_says(remedy) for remedy in held)


def _says(remedy: Remedy) -> str:
    return f"{remedy.what}: {'all' if remedy.helped == remedy.of else f'{remedy.helped} of {remedy.of}'}"
