# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""An audit as text for the terminal: rich renderables, for the command line to print. Imports no torch."""

from collections.abc import Iterator, Sequence

import numpy as np
from rich import box
from rich.console import Group as Stack
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table as Grid
from rich.text import Text

from boxwright.auditor.checks import CHECKS
from boxwright.auditor.learnable import CellRule, QueryRule
from boxwright.auditor.readers import described
from boxwright.auditor.result import Audit
from boxwright.auditor.scene import Finding, counted
from boxwright.datasets.codes import Severity
from boxwright.table import Table

STYLES: dict[Severity, str] = {"error": "bold red", "warning": "yellow", "note": "dim"}
CLASSES = 25  # rows of the table of classes
EXAMPLES = 3  # of each finding
ERRORS = 15  # label errors that are listed
WHAT = {check.code: check.what for check in CHECKS}


def summary(audit: Audit, *, examples: int = EXAMPLES, classes: int = CLASSES) -> RenderableType:
    """Everything that fits a terminal, most important last, where a person's eyes are."""
    made: list[RenderableType] = [headline(audit)]
    if audit.header is not None and audit.labels:
        made.append(class_table(audit, classes))
    if audit.learnable:
        made.append(candidate_table(audit, classes))
    if audit.errors is not None:
        made.append(error_table(audit.errors))
    made += [*finding_blocks(audit.findings, examples), verdict(audit)]
    return Stack(*made)


def headline(audit: Audit) -> Text:
    """What was looked at."""
    line = Text.assemble((str(audit.source), "bold"))
    header = audit.header
    if header is None:
        return line
    line.append(f": {header.format}, {counted(len(header.names), 'class', 'classes')}")
    for split, labels in audit.labels.items():
        images = counted(len(labels.images), "image")
        what = images if labels.image_labels is not None else f"{images}, {counted(len(labels), 'object')}"
        line.append(f"; {split} {what}")
    if not audit.looked_at_pixels:
        line.append("; pixels were not looked at")
    return line


def class_table(audit: Audit, most: int = CLASSES) -> RenderableType:
    """Objects of each class, and the weights that rules would give; most frequent first."""
    classes = audit.classes
    splits = [*audit.labels]
    weights = [name for name in classes.columns if name.startswith("weight/")]
    noun = "images" if any(labels.image_labels is not None for labels in audit.labels.values()) else "objects"
    title = f"{noun} of each class, and class weights by rule (criterion.class_weights.kind)"
    grid = _grid(["class"], [*splits, *(name.partition("/")[2] for name in weights)])
    total = np.sum([classes[split] for split in splits], axis=0)
    order = np.argsort(-total, kind="stable")
    for row in order[:most].tolist():
        cells = [str(classes[split][row]) for split in splits] + [f"{classes[name][row]:.3g}" for name in weights]
        grid.add_row(Text(str(classes["class"][row])), *cells)
    if len(order) > most:
        rest = order[most:]
        cells = [str(int(classes[split][rest].sum())) for split in splits] + [""] * len(weights)
        grid.add_row(Text(f"{len(rest)} more", "dim"), *cells)
    return _titled(title, grid)


def candidate_table(audit: Audit, most: int = CLASSES) -> RenderableType:
    """Who can be learned, by size, and the classes with most objects that cannot."""
    setting = next(iter(audit.learnable.values())).setting
    rule = setting.rule
    what = {CellRule: "cells whose centre lies inside the box", QueryRule: "queries"}.get(
        type(rule), "anchors that fit"
    )
    title = f"candidates for {setting.model or 'the assigner'} at {setting.imgsz} px: {what}, {rule.asked} asked for"
    held = audit.candidates
    grid = _grid(["split", "class", "size"], ["objects", "none", f"fewer than {rule.asked}", "mean"])
    bad = held["no_candidate"] + held["fewer_than_asked"]
    whole = (held["class"] == "all") & ((held["size"] == "all") | (bad > 0))
    single = np.flatnonzero((held["class"] != "all") & (held["size"] == "all") & (held["no_candidate"] > 0))
    single = single[np.argsort(-held["no_candidate"][single], kind="stable")][:most]
    for row in [*np.flatnonzero(whole).tolist(), *single.tolist()]:
        mean = f"{held['candidates_mean'][row]:.1f}"
        numbers = [str(held[name][row]) for name in ("objects", "no_candidate", "fewer_than_asked")]
        grid.add_row(*(Text(str(held[name][row])) for name in ("split", "class", "size")), *numbers, mean)
    return _titled(title, grid)


def error_table(errors: Table, most: int = ERRORS) -> RenderableType:
    """The most suspicious labels."""
    if not len(errors):
        return Text("label errors: the model contradicts no label", style="green")
    counts = {kind: int((errors["kind"] == kind).sum()) for kind in ("overlooked", "swapped", "badly placed")}
    title = "label errors the model suspects: " + ", ".join(f"{kind} {count}" for kind, count in counts.items())
    names = ["split", "image", "object", "kind", "labelled", "model says"]
    grid = _grid(names, ["suspicion", "score", "overlap"])
    for row in errors.head(most).rows():
        place = str(row["object"] + 1) if row["object"] >= 0 else "-"
        texts = (row["split"], row["image"].rpartition("/")[2], place, row["kind"], row["labelled"], row["detected"])
        numbers = (f"{row[name]:.2f}" for name in ("suspicion", "score", "overlap"))
        grid.add_row(*(Text(text) for text in texts), *numbers)
    if len(errors) > most:
        grid.caption = Text(f"{len(errors) - most} more are in label_errors.json")
        grid.caption_justify = "left"
    return _titled(title, grid)


def finding_blocks(findings: Sequence[Finding], examples: int = EXAMPLES) -> Iterator[RenderableType]:
    """One block for each code, worst last: what it is, where, some examples, what to do."""
    groups: dict[tuple[Severity, str], list[Finding]] = {}
    for finding in reversed(findings):
        groups.setdefault((finding.severity, finding.code), []).insert(0, finding)
    for (severity, code), held in groups.items():
        what = WHAT.get(code) or described(code).what
        yield Text.assemble((severity, STYLES[severity]), " ", (code, "bold"), f"  {what}")
        order = {"train": 0, "val": 1, "test": 2}
        for finding in sorted(held, key=lambda one: order.get(one.splits[0], 3) if one.splits else -1):
            yield from _block(finding, what, examples)
        yield _indented(Text(f"to do: {held[0].fix}", style="italic"), 2)
        yield Text()


def _block(finding: Finding, what: str, examples: int) -> Iterator[RenderableType]:
    where = " and ".join(finding.splits)
    message = "" if finding.message == what else finding.message
    if where or message or finding.count > 1:
        said = message or counted(finding.count, "time")
        yield _indented(Text(f"{where}: {said}" if where else said), 2)
    shown = finding.examples[:examples]
    for example in shown:
        yield _indented(Text(str(example)), 4)
    if finding.count > len(shown) and shown and len(finding.examples) > len(shown):
        yield _indented(Text("...", style="dim"), 4)


def verdict(audit: Audit) -> Text:
    """What was found, in one line."""
    if not audit.findings:
        return Text("nothing found", style="bold green")
    kinds: dict[Severity, str] = {"error": "errors", "warning": "warnings", "note": "notes"}
    counts = {word: len({finding.code for finding in audit.of_severity(kind)}) for kind, word in kinds.items()}
    parts = [f"{word} of {counted(count, 'kind')}" if count else f"no {word}" for word, count in counts.items()]
    return Text("; ".join(parts), style="bold")


def _titled(title: str, grid: Grid) -> RenderableType:
    return Stack(Text(title, style="bold"), grid)


def _indented(text: Text, columns: int) -> Padding:
    return Padding(text, (0, 0, 0, columns), expand=False)


def _grid(text: Sequence[str], numbers: Sequence[str]) -> Grid:
    made = Grid(box=box.SIMPLE, pad_edge=False)
    for name in text:
        made.add_column(name, overflow="fold")
    for name in numbers:
        made.add_column(name, justify="right", no_wrap=True)
    return made
