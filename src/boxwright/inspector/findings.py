# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""What a person should know of an inspected batch, as sentences with a place. One function per kind of finding."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from boxwright.inspector.probe import Inspection
from boxwright.ops.nms import class_aware_nms
from boxwright.table import Table

SURE = 0.5  # score of an unmatched candidate that is worth a look
APART = 0.1  # overlap with every label below which a find has no label
SAME = 0.5  # overlap above which a find and a label mean the same object
DOMINANT = 0.9  # share of all items' gradients
LISTED = 20  # findings of one kind that are spelled out; the rest is counted

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True, slots=True)
class Observation:
    """One observation; `code` is stable. Images are places in the batch, objects slots; None where it has no such."""

    code: str
    severity: Severity
    message: str
    image: int | None = None
    object: int | None = None
    term: str | None = None
    count: int = 1  # how many cases it stands for


def findings_of(inspection: Inspection) -> tuple[Observation, ...]:
    """Every finding, errors first."""
    found = [finding for rule in RULES for finding in rule(inspection)]
    rank = {"error": 0, "warning": 1, "note": 2}
    return tuple(sorted(found, key=lambda finding: rank[finding.severity]))


def not_finite(inspection: Inspection) -> Iterator[Observation]:
    """Terms with an infinite or undefined contribution, with the images and objects that pay it."""
    for fault in inspection.faults:
        first = fault.places[0] if fault.places else None
        yield Observation(
            "not_finite",
            "error",
            fault.words(),
            image=None if first is None else first.image,
            object=None if first is None else first.object,
            term=fault.name,
            count=fault.count,
        )


def no_positive(inspection: Inspection) -> Iterator[Observation]:
    """Objects that no candidate learns from."""
    if not len(inspection.objects):
        return
    lonely = inspection.objects.take(inspection.objects["positives"] == 0)
    yield from _listed(
        lonely,
        "no_positive",
        "warning",
        lambda r: (
            f"{_image(r)}, object {r['object']} ({r['class']}, {r['w']:.0f} x {r['h']:.0f} px): no candidate "
            f"learns from it{_why(r)}"
        ),
    )


def contested(inspection: Inspection) -> Iterator[Observation]:
    """Objects that lost at least as many candidates as they hold."""
    if "fate/lost" not in inspection.objects:
        return
    lost, held = inspection.objects["fate/lost"], inspection.objects["positives"]
    yield from _listed(
        inspection.objects.take((lost > 0) & (lost >= held)),
        "contested",
        "note",
        lambda r: (
            f"{_image(r)}, object {r['object']} ({r['class']}): {r['fate/lost']} candidates went to other "
            f"objects, {r['positives']} are left"
        ),
    )


def clipped(inspection: Inspection) -> Iterator[Observation]:
    """Objects whose sides are farther than the distance bins reach."""
    if "clipped" not in inspection.pairs:
        return
    cut = inspection.pairs.take(inspection.pairs["clipped"].astype(bool))
    keys = np.stack((cut["image"], cut["object"]), axis=1)
    _, first, counts = np.unique(keys, axis=0, return_index=True, return_counts=True)
    yield from _listed(
        cut.take(first).with_columns({"times": counts}),
        "clipped_distance",
        "note",
        lambda r: (
            f"{_image(r)}, object {r['object']} ({r['class']}): {r['times']} candidates cannot reach a side, it "
            f"is more than the head's bins away at stride {r['stride']}"
        ),
    )


def silent(inspection: Inspection) -> Iterator[Observation]:
    """Terms that teach nothing although there are pairs."""
    for row in inspection.terms.rows():
        if row["pairs"] and row["loss"] == 0 and not row["gradient"] > 0:
            yield Observation(
                "silent_term",
                "warning",
                f"{row['term']}: adds nothing and sends no gradient although {row['pairs']} pairs exist "
                f"(gain {row['gain']:g})",
                term=row["term"],
            )


def dominant(inspection: Inspection) -> Iterator[Observation]:
    """A term that sends nearly all of the gradient."""
    lengths = np.nan_to_num(inspection.terms["gradient"]) if len(inspection.terms) else np.zeros(0)
    if len(lengths) < 2 or not lengths.sum() > 0:
        return
    share = lengths / lengths.sum()
    top = int(share.argmax())
    if share[top] > DOMINANT:
        name = str(inspection.terms["term"][top])
        yield Observation("dominant_term", "note", f"{name}: sends {share[top]:.0%} of all terms' gradient", term=name)


def missing_labels(inspection: Inspection) -> Iterator[Observation]:
    """Sure finds far from every label, each place once: objects that may have been overlooked."""
    if not len(inspection.background):
        return
    table = inspection.background
    yield from _listed(
        _one_each(table.take((table["score"] > SURE) & (table["nearest_overlap"] < APART))),
        "no_label_there",
        "note",
        lambda r: (
            f"{_image(r)}: {r['class']} {r['score']:.2f} at ({r['x1']:.0f}, {r['y1']:.0f}, {r['x2']:.0f}, "
            f"{r['y2']:.0f}) and no label there"
        ),
        place=False,
    )


def other_class(inspection: Inspection) -> Iterator[Observation]:
    """Sure finds on a label of another class, each place once."""
    if not len(inspection.background):
        return
    table = inspection.background
    differs = table["class"] != table["nearest_class"]
    yield from _listed(
        _one_each(table.take((table["score"] > SURE) & (table["nearest_overlap"] > SAME) & differs)),
        "other_class_there",
        "note",
        lambda r: (
            f"{_image(r)}: {r['class']} {r['score']:.2f} on object {r['nearest_object']}, which is labelled "
            f"{r['nearest_class']}"
        ),
        place=False,
    )


RULES: tuple[Callable[[Inspection], Iterator[Observation]], ...] = (
    not_finite,
    no_positive,
    contested,
    clipped,
    silent,
    dominant,
    missing_labels,
    other_class,
)


def _listed(
    table: Table,
    code: str,
    severity: Severity,
    say: "Callable[[dict[str, object]], str]",
    *,
    place: bool = True,
) -> Iterator[Observation]:
    for row in table.head(LISTED).rows():
        yield Observation(
            code, severity, say(row), image=int(row["image"]), object=int(row["object"]) if place else None
        )
    rest = len(table) - LISTED
    if rest > 0:
        yield Observation(code, severity, f"{rest} more of the same kind ({code})", count=rest)


def _image(row: dict[str, object]) -> str:
    """An image by its place in the batch, and by its file where it has one."""
    name = Path(str(row.get("path") or "")).name
    return f"image {row['image']}{f' ({name})' if name else ''}"


def _one_each(table: Table) -> Table:
    """Of finds of one class that overlap in an image, the first."""
    if not len(table):
        return table
    boxes = torch.from_numpy(np.stack([table[name] for name in ("x1", "y1", "x2", "y2")], axis=1).astype(np.float64))
    keys = np.stack((table["image"], table["label"]), axis=1)
    _, group = np.unique(keys, axis=0, return_inverse=True)
    in_order = -torch.arange(len(table), dtype=torch.float64)
    kept = class_aware_nms(boxes, in_order, torch.from_numpy(group.reshape(-1).astype(np.int64)), SAME)
    return table.take(kept.numpy())


def _why(row: dict[str, object]) -> str:
    reasons = {
        name.removeprefix("fate/").replace("_", " "): count
        for name, count in row.items()
        if name.startswith("fate/") and count
    }
    if not reasons:
        return ""
    return ": " + ", ".join(f"{count} {reason}" for reason, count in reasons.items())
