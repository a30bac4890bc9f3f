# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""What the report's page reads: an inspection as columns of short numbers, within a budget of bytes."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from boxwright.inspector.findings import Observation
from boxwright.inspector.probe import Inspection
from boxwright.inspector.rollups import Group, roll_up
from boxwright.losses.assign.trace import FATES
from boxwright.reports.legend import FINDING_WORDS, SIGNS, hexadecimal, role_words, term_words
from boxwright.table import Table

SHORT, LONG = 4, 6  # significant digits: of what is looked at, of what is summed
LEVEL_GROUPS: tuple[Group, ...] = ("class", "size", "level")
# How much of each object is told, richest first: candidates besides its positives, and whether distances are.
LADDER: tuple[tuple[int | None, bool], ...] = (
    (None, True),
    (24, True),
    (12, True),
    (12, False),
    (4, False),
    (0, False),
)
HEAD_SHARE, DETAIL_SHARE = 0.4, 0.45  # of the budget, and of what is left of it
OBJECT_BYTES = 260  # about what an object takes in the head, with its terms; sets how many images a report can hold
SAMPLED = 16  # images that a step of the ladder is tried on
HIDDEN = ("path", "image", "class", "label")  # told once per image, by place, or by index

Columns = dict[str, list[Any]]


@dataclass(frozen=True, slots=True)
class Chosen:
    """The images of a report: rows of `Inspection.images`, and the place of every image number among them."""

    rows: np.ndarray
    place: dict[int, int]
    total: int

    def of(self, table: Table) -> Table:
        """The table's rows of these images, with column `image` as the place in the report."""
        if not len(table) or "image" not in table:
            return table
        place = np.array([self.place.get(number, -1) for number in table["image"].tolist()], np.int64)
        return table.with_columns({"image": place}).take(place >= 0)


def choose_images(inspection: Inspection, most: int, budget: int) -> Chosen:
    """All images where they fit; else those with the highest loss, in their own order."""
    table = inspection.images
    rows = np.arange(len(table))
    fit = most
    if len(inspection.objects):
        fit = min(most, max(1, int(budget * HEAD_SHARE / OBJECT_BYTES / len(inspection.objects) * len(table))))
    if len(table) > fit:
        dear = np.nan_to_num(table["loss"].astype(np.float64), nan=np.inf, posinf=np.inf)
        rows = np.sort(np.argsort(-dear, kind="stable")[:fit])
    place = {int(number): index for index, number in enumerate(table["image"][rows].tolist())}
    return Chosen(rows, place, len(table))


def head_of(inspection: Inspection, chosen: Chosen, findings: Sequence[Observation]) -> dict[str, Any]:
    """Everything but pictures and candidates."""
    return {
        "total": plain(inspection.total),
        "names": list(inspection.names),
        "task": "objects" if len(inspection.objects.columns) else "images",
        "counts": _counts(inspection),
        "terms": [{**_plain_row(row), "words": term_words(row["term"])} for row in inspection.terms.rows()],
        "parts": [{"part": part, "words": role_words(part)} for part in _parts(inspection)],
        "fates": fate_signs(),
        "findings": [_finding(finding, chosen) for finding in findings],
        "groups": groups_of(inspection),
        "images": columns_of(inspection.images.take(chosen.rows), without=("label",), digits=LONG),
        "objects": _objects(chosen.of(inspection.objects)),
        "background": _objects(chosen.of(inspection.background)),
    }


def against_of(against: Inspection, chosen: Chosen) -> dict[str, Any]:
    """What a comparison needs of the other side: its objects are those of the report, in the same order."""
    table = chosen.of(against.objects)
    wanted = [
        name
        for name in table.columns
        if name in ("loss", "positives", "gradient") or name.startswith("fate/") or _is_item(name, table)
    ]
    return {
        "total": plain(against.total),
        "counts": _counts(against),
        "terms": [_plain_row(row) for row in against.terms.rows()],
        "groups": groups_of(against),
        "objects": columns_of(Table({name: table[name] for name in wanted}), digits=LONG),
    }


@dataclass(frozen=True, slots=True)
class Details:
    """Candidates and pairs of every image of a report, as JSON, and what had to be left out for room."""

    texts: list[str]
    left_out: tuple[str, ...]


def details_of(sides: Sequence[Inspection], chosen: Chosen, budget: int) -> Details:
    """Candidates and pairs by image; `sides` are the inspection and, where there is one, that it is compared with."""
    whole = [(chosen.of(side.candidates), chosen.of(side.pairs)) for side in sides]
    sample = np.unique(np.linspace(0, len(chosen.rows) - 1, min(SAMPLED, len(chosen.rows))).astype(int))
    for limit, distances in LADDER:
        shown = [_limited(candidates, pairs, limit, distances) for candidates, pairs in whole]
        guess = sum(len(text) for text in _texts(shown, sample.tolist())) * len(chosen.rows) / max(len(sample), 1)
        if guess > budget * 1.1 and (limit, distances) != LADDER[-1]:
            continue
        texts = list(_texts(shown, range(len(chosen.rows))))
        if sum(map(len, texts)) <= budget:
            return Details(texts, _told(limit, distances))
    dropped, texts = _drop_until_it_fits(texts, sides[0].images.take(chosen.rows), budget)
    told = f"candidates of the {dropped} images with the lowest loss"
    return Details(texts, (*_told(*LADDER[-1]), told))


def groups_of(inspection: Inspection) -> dict[str, list[dict[str, Any]]]:
    """Roll-ups as rows; levels only where there are any."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for by in LEVEL_GROUPS:
        if by != "level" or "stride" in inspection.pairs:
            groups[by] = [_plain_row(row) for row in roll_up(inspection, by).rows()]
    return groups


def fate_signs() -> list[dict[str, str]]:
    """Every fate with its title, colour, mark and explanation."""
    return [
        {
            "fate": fate,
            "title": SIGNS[fate].title,
            "colour": hexadecimal(SIGNS[fate].colour),
            "mark": SIGNS[fate].mark,
            "words": SIGNS[fate].words,
        }
        for fate in FATES
    ]


def columns_of(table: Table, *, without: Sequence[str] = (), digits: int = SHORT) -> Columns:
    """Columns as lists that JSON can hold: short numbers, None for what is not finite."""
    return {name: _list(column, digits) for name, column in table.columns.items() if name not in without}


def plain(value: float) -> float | None:
    """The number, or None where it is not finite."""
    return value if np.isfinite(value) else None


def json_text(value: Any) -> str:
    """JSON that is safe inside a script element: no sign in it can end the element or begin another."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


# -- head ----------------------------------------------------------------------------------------------------------


def _counts(inspection: Inspection) -> dict[str, Any]:
    objects, terms, images = inspection.objects, inspection.terms, inspection.images
    counts: dict[str, Any] = {"images": len(images), "objects": len(objects)}
    for name in ("objects", "background", "images"):
        counts[f"loss_{name}"] = plain(float(terms[name].sum())) if len(terms) else 0.0
    if len(objects):
        counts["lonely"] = int((objects["positives"] == 0).sum())
        counts["positives"] = int(objects["positives"].sum())
    if "found_label" in images and len(images):
        known = images["label"] >= 0
        counts["right"] = int((images["label"] == images["found_label"])[known].sum())
        counts["known"] = int(known.sum())
    return counts


def _parts(inspection: Inspection) -> list[str]:
    return list(dict.fromkeys(str(name).rpartition("/")[0] for name in inspection.terms["term"].tolist()))


def _finding(finding: Observation, chosen: Chosen) -> dict[str, Any]:
    title, words = FINDING_WORDS.get(finding.code, (finding.code.replace("_", " "), ""))
    place = None if finding.image is None else chosen.place.get(finding.image)
    return {
        "code": finding.code,
        "title": title,
        "words": words,
        "severity": finding.severity,
        "message": finding.message,
        "image": place,
        "object": None if place is None else finding.object,
        "term": finding.term,
        "count": finding.count,
    }


def _objects(table: Table) -> Columns:
    """Rows of objects or background: class by name, boxes and losses short."""
    table = Table({name: column for name, column in table.columns.items() if not name.startswith("found_")})
    found = columns_of(table, without=("path", "label", "side"))
    if len(table):
        for name in ("loss", *(name for name in table.columns if _is_item(name, table))):
            found[name] = _list(table[name], LONG)
    return found


def _is_item(name: str, table: Table) -> bool:
    return "/" in name and table[name].dtype.kind == "f"


def _plain_row(row: dict[str, Any]) -> dict[str, Any]:
    return {name: plain(value) if isinstance(value, float) else value for name, value in row.items()}


# -- details -------------------------------------------------------------------------------------------------------

_PAIR_COLUMNS = ("part", "object", "candidate", "x", "y", "stride", "score", "overlap", "loss", "gradient", "clipped")
_FOUND = ("found_x1", "found_y1", "found_x2", "found_y2")
_DISTANCES = tuple(f"{what}_{side}" for what in ("found", "wanted") for side in ("left", "top", "right", "bottom"))


def _limited(candidates: Table, pairs: Table, limit: int | None, distances: bool) -> tuple[Table, Table]:
    """Positives, what others took, and the best `limit` of the rest; pairs with or without distances."""
    if limit is not None and len(candidates):
        fate = candidates["fate"]
        candidates = candidates.take(
            (fate == "positive") | (candidates["rank"] < limit) | ((fate == "lost") & (limit > 0))
        )
    wanted = ("image", *_PAIR_COLUMNS, *_FOUND, *(_DISTANCES if distances else ()))
    return candidates, Table({name: column for name, column in pairs.columns.items() if name in wanted})


def _texts(sides: Sequence[tuple[Table, Table]], places: Sequence[int] | range) -> Iterator[str]:
    """For every place, the JSON of its candidates and pairs on each side."""
    split = [(_ByPlace(candidates), _ByPlace(pairs)) for candidates, pairs in sides]
    for place in places:
        yield json_text([{"candidates": of(place), "pairs": and_of(place)} for of, and_of in split])


class _ByPlace:
    """Rows of one image as lists, without looking at those of others."""

    def __init__(self, table: Table) -> None:
        self.columns: dict[str, np.ndarray] = {}
        self.bounds: tuple[np.ndarray, np.ndarray] | None = None
        if not len(table):
            return
        order = np.argsort(table["image"], kind="stable")
        places = table["image"][order]
        numbers = np.arange(int(places[-1]) + 1)
        self.bounds = np.searchsorted(places, numbers), np.searchsorted(places, numbers, side="right")
        for name, column in table.columns.items():
            if name not in HIDDEN:
                of = column[order]
                self.columns[name] = _coded(of) if name == "fate" else _short(of, SHORT)

    def __call__(self, place: int) -> Columns:
        if self.bounds is None or place >= len(self.bounds[0]):
            return {}
        first, last = int(self.bounds[0][place]), int(self.bounds[1][place])
        return {name: _finite(column[first:last]) for name, column in self.columns.items()}


def _coded(fates: np.ndarray) -> np.ndarray:
    code = {fate: index for index, fate in enumerate(FATES)}
    return np.array([code[fate] for fate in fates.tolist()], np.int64)


def _told(limit: int | None, distances: bool) -> tuple[str, ...]:
    told = []
    if limit is not None:
        told.append(f"candidates beyond the best {limit} of each object that do not learn from it")
    if not distances:
        told.append("predicted and wanted distances of candidates to the four sides")
    return tuple(told)


def _drop_until_it_fits(texts: list[str], images: Table, budget: int) -> tuple[int, list[str]]:
    size, dropped = sum(map(len, texts)), 0
    for place in np.argsort(np.nan_to_num(images["loss"].astype(np.float64), nan=np.inf), kind="stable").tolist():
        if size <= budget:
            break
        size -= len(texts[place]) - 2
        texts[place] = "[]"
        dropped += 1
    return dropped, texts


# -- numbers -------------------------------------------------------------------------------------------------------


def _list(column: np.ndarray, digits: int) -> list[Any]:
    return _finite(_short(column, digits))


def _short(column: np.ndarray, digits: int) -> np.ndarray:
    """Rounded to significant digits; whole numbers of a fractional column become integers."""
    if column.dtype.kind != "f":
        return column
    wide = column.astype(np.float64)
    finite = np.isfinite(wide)
    if finite.all() and (wide == np.rint(wide)).all() and (np.abs(wide) < 2**53).all():
        return wide.astype(np.int64)
    with np.errstate(divide="ignore", invalid="ignore"):
        digit = np.floor(np.log10(np.abs(np.where(finite & (wide != 0), wide, 1.0))))
    factor = 10.0 ** np.clip(digits - 1 - digit, 0, 12)
    return np.where(finite, np.rint(np.where(finite, wide, 0.0) * factor) / factor, wide)


def _finite(column: np.ndarray) -> list[Any]:
    values: list[Any] = column.tolist()
    if column.dtype.kind == "f" and not np.isfinite(column).all():
        return [value if np.isfinite(value) else None for value in values]
    return values
