# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""An inspection as tables for the terminal: rich renderables, for the command line to print."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich import box
from rich.console import Group as Stack
from rich.console import RenderableType
from rich.table import Table as Grid
from rich.text import Text

from boxwright.inspector.findings import Observation, findings_of
from boxwright.inspector.probe import Inspection
from boxwright.inspector.rollups import Group, roll_up
from boxwright.losses.assign.trace import FATES
from boxwright.reports.legend import FINDING_WORDS, SIGNS, hexadecimal, term_words
from boxwright.table import Table

WORST = 10  # objects, images, background candidates and lonely objects that are listed
BAR = 16  # characters of a full bar
STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}
FATE_PREFIX = "fate/"


def summary(
    inspection: Inspection,
    findings: Sequence[Observation] | None = None,
    *,
    against: Inspection | None = None,
    sides: tuple[str, str] = ("this", "against"),
    worst: int = WORST,
) -> RenderableType:
    """Everything that fits a terminal, most important last, where a person's eyes are."""
    found = findings_of(inspection) if findings is None else findings
    made: list[RenderableType] = [headline(inspection), terms(inspection)]
    if len(inspection.objects):
        made += [by_group(inspection, "class"), by_group(inspection, "size")]
        if "stride" in inspection.pairs:
            made.append(by_group(inspection, "level"))
        made += [worst_objects(inspection, worst), background(inspection, worst), without_positive(inspection, worst)]
    made.append(worst_images(inspection, worst))
    if against is not None:
        made.append(difference(inspection, against, sides))
    made.append(finding_list(found))
    return Stack(*made)


def headline(inspection: Inspection) -> Text:
    """Loss, objects and who learns, in one or two lines."""
    objects = inspection.objects
    line = Text.assemble(
        ("loss ", "bold"), (_number(inspection.total), "bold"), f" of {_counted(len(inspection.images), 'image')}"
    )
    if len(objects):
        lonely = int((objects["positives"] == 0).sum())
        line.append(f"; {_counted(len(objects), 'object')}, {objects['positives'].mean():.1f} positives each; ")
        line.append(f"{lonely} learn nothing", style="bold red" if lonely else "green")
        paid = float(inspection.terms["background"].sum())
        line.append(f"; background pays {_share(paid, inspection.total)}")
    return line


def finding_list(findings: Sequence[Observation]) -> RenderableType:
    """One line for each finding, worst last, after a count of each severity."""
    if not findings:
        return Text("findings: none", style="green")
    grid = _grid("findings", ["kind", "what", ""], [])
    rank = {"note": 0, "warning": 1, "error": 2}
    for finding in sorted(findings, key=lambda one: rank[one.severity]):
        title = FINDING_WORDS.get(finding.code, (finding.code.replace("_", " "), ""))[0]
        grid.add_row(Text(finding.severity, STYLES[finding.severity]), title, Text(finding.message))
    counts = {kind: sum(one.count for one in findings if one.severity == kind) for kind in ("error", "warning", "note")}
    grid.caption = Text(", ".join(_counted(count, kind) for kind, count in counts.items() if count))
    grid.caption_justify = "left"
    return grid


def terms(inspection: Inspection) -> Grid:
    """What each item of the loss adds, and who pays it."""
    table = inspection.terms
    whole = float(np.nansum(table["loss"])) if len(table) else 0.0
    shown = [
        "loss",
        "share",
        "objects",
        "background",
        *(["images"] if _any(table, "images") else []),
        "gain",
        "gradient",
    ]
    odd = ["not_finite"] if _any(table, "not_finite") else []
    grid = _grid("what the loss is made of", ["term"], [*shown, *(name.replace("_", " ") for name in odd)])
    grid.add_column("what it is about", overflow="fold", style="dim")
    for row in table.rows():
        values = {**row, "share": row["loss"]}
        cells = [_share(row["loss"], whole) if name == "share" else _number(values[name]) for name in shown]
        grid.add_row(Text(row["term"]), *cells, *(str(row[name]) for name in odd), term_words(row["term"]))
    return grid


def by_group(inspection: Inspection, by: Group) -> Grid:
    """The roll-up by class, size, level or image, with a bar of what each pays."""
    table = roll_up(inspection, by)
    first = next(iter(table.columns), by)
    wanted: dict[str, str] = {
        "objects": "objects",
        "without_positive": "learn nothing",
        "positives_mean": "positives each",
        "pairs": "pairs",
        "overlap_mean": "mean overlap",
        "score_mean": "mean score",
        "clipped": "out of reach",
        "loss": "loss",
        "loss_mean": "loss each",
    }
    shown = [name for name in wanted if name in table]
    grid = _grid(f"by {by}", [first], [wanted[name] for name in shown])
    grid.add_column("")
    most = float(np.nanmax(table["loss"], initial=0.0)) if len(table) else 0.0
    for row in table.rows():
        grid.add_row(Text(str(row[first])), *(_number(row[name]) for name in shown), _bar(row["loss"], most))
    return grid


def worst_objects(inspection: Inspection, count: int = WORST) -> Grid:
    """The objects that add most to the loss."""
    table = _dearest(inspection.objects).head(count)
    return _objects(f"the {len(table)} objects that cost most", table)


def without_positive(inspection: Inspection, count: int = WORST) -> RenderableType:
    """Objects that no candidate learns from, and what became of their candidates."""
    table = inspection.objects
    if len(table):
        table = table.take(table["positives"] == 0)
    if not len(table):
        return Text("objects that no candidate learns from: none", style="green")
    return _objects(f"objects that no candidate learns from ({len(table)})", table.head(count), more=len(table) - count)


def worst_images(inspection: Inspection, count: int = WORST) -> Grid:
    """The images that add most to the loss."""
    table = _dearest(inspection.images).head(count)
    kinds = {"objects": "objects", "loss": "loss", "loss_objects": "of objects", "loss_background": "of background"}
    shown = [name for name in kinds if name in table]
    grid = _grid(f"the {len(table)} images that cost most", ["image", "file"], [kinds[name] for name in shown])
    if "found_class" in table:
        for name in ("label", "found"):
            grid.add_column(name, overflow="fold")
    for row in table.rows():
        cells: list[str | Text] = [str(row["image"]), Text(_file(row["path"]))]
        cells += [_number(row[name]) for name in shown]
        if "found_class" in row:
            cells += [Text(row["class"]), Text(row["found_class"])]
        grid.add_row(*cells)
    return grid


def background(inspection: Inspection, count: int = WORST) -> Grid:
    """The unmatched candidates that cost most, and the label nearest to each."""
    table = inspection.background.head(count)
    grid = _grid(f"the {len(table)} background candidates that cost most", ["image", "found"], ["score", "loss"])
    for name in ("nearest label", "overlap", "distance px"):
        grid.add_column(name, justify="left" if name == "nearest label" else "right", overflow="fold")
    for row in table.rows():
        near = f"{row['nearest_object']} {row['nearest_class']}" if row["nearest_object"] >= 0 else "none"
        numbers = (_number(row[name]) for name in ("score", "loss"))
        rest = (_number(row[name]) for name in ("nearest_overlap", "nearest_distance"))
        grid.add_row(str(row["image"]), Text(row["class"]), *numbers, Text(near), *rest)
    return grid


def difference(inspection: Inspection, against: Inspection, sides: tuple[str, str] = ("this", "against")) -> Stack:
    """What two inspections of the same images and labels pay, by term and by class."""
    both = (inspection, against)
    made = [_compared("term", [{row["term"]: row["loss"] for row in side.terms.rows()} for side in both], sides)]
    if all(len(side.objects) for side in both):
        paid = [{row["class"]: row["loss"] for row in roll_up(side, "class").rows()} for side in both]
        made.append(_compared("class", paid, sides))
    return Stack(*made)


def _compared(what: str, paid: Sequence[dict[str, float]], sides: tuple[str, str]) -> Grid:
    grid = _grid(f"loss by {what}, {sides[0]} minus {sides[1]}", [what], [*sides, "difference"])
    ours, theirs = paid
    for name in dict.fromkeys((*ours, *theirs)):
        change = ours.get(name, 0.0) - theirs.get(name, 0.0)
        style = "" if change == 0 else "red" if change > 0 else "green"
        cells = (_number(of[name]) if name in of else "-" for of in paid)
        grid.add_row(Text(name), *cells, Text(("+" if change > 0 else "") + _number(change), style))
    return grid


def _objects(title: str, table: Table, more: int = 0) -> Grid:
    grid = _grid(title, ["image", "object", "class", "px"], ["positives", "loss", "gradient"])
    grid.add_column("what became of its candidates", overflow="fold")
    for row in table.rows():
        sides = f"{row['w']:.0f} x {row['h']:.0f}"
        numbers = (_number(row[name]) for name in ("positives", "loss", "gradient"))
        grid.add_row(str(row["image"]), str(row["object"]), Text(row["class"]), sides, *numbers, _fates(row))
    if more > 0:
        grid.caption = Text(f"and {more} more")
        grid.caption_justify = "left"
    return grid


def _fates(row: dict[str, Any]) -> Text:
    line = Text()
    for fate in FATES:
        count = row.get(f"{FATE_PREFIX}{fate}", 0)
        if count:
            line.append(", " if line else "")
            line.append(f"{count} {SIGNS[fate].title}", style=hexadecimal(SIGNS[fate].colour))
    return line


def _grid(title: str, text: Sequence[str], numbers: Sequence[str]) -> Grid:
    made = Grid(title=Text(title), box=box.SIMPLE, title_justify="left", title_style="bold", pad_edge=False)
    for name in text:
        made.add_column(Text(name), overflow="fold")
    for name in numbers:
        made.add_column(Text(name), justify="right", no_wrap=True)
    return made


def _dearest(table: Table) -> Table:
    """Rows by loss, what is not finite first."""
    if not len(table):
        return table
    keys = np.nan_to_num(table["loss"].astype(np.float64), nan=np.inf, posinf=np.inf)
    return table.take(np.argsort(-keys, kind="stable"))


def _any(table: Table, name: str) -> bool:
    return bool(len(table)) and bool((table[name] != 0).any())


def _number(value: float | int) -> str:
    if isinstance(value, int):
        return str(value)
    return f"{value:.4g}" if math.isfinite(value) else "not finite"


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole and math.isfinite(part / whole) else "-"


def _bar(value: float, most: float) -> str:
    return "█" * math.ceil(value / most * BAR) if most > 0 and math.isfinite(value) and value > 0 else ""


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _file(path: str) -> str:
    return path.replace("\\", "/").rpartition("/")[2]
