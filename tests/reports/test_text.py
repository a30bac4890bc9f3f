# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Terminal tables: the numbers of the inspection, and text that no name can turn into markup."""

import io
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console
from tests.inspector.scenes import batch, inspected, scenes

from boxwright.inspector.findings import Observation, findings_of
from boxwright.inspector.rollups import roll_up
from boxwright.reports import text
from boxwright.table import Table


def shown(renderable, width=200):
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(renderable)
    return console.file.getvalue()


def test_the_headline_counts_objects_that_learn_nothing():
    inspection = inspected()
    line = shown(text.headline(inspection), width=400)

    assert f"loss {inspection.total:.4g} of 6 images" in line
    assert f"{len(inspection.objects)} objects" in line
    assert "6 learn nothing" in line
    share = inspection.terms["background"].sum() / inspection.total
    assert f"background pays {share:.1%}" in line


def test_terms_are_listed_with_shares_and_words():
    inspection = inspected()
    lines = {line.split()[0]: line for line in shown(text.terms(inspection)).splitlines() if "main/" in line}

    assert set(lines) == {"main/box", "main/cls", "main/dfl"}
    cls = next(row for row in inspection.terms.rows() if row["term"] == "main/cls")
    for value in (cls["loss"], cls["objects"], cls["background"], cls["gradient"]):
        assert f"{value:.4g}" in lines["main/cls"]
    assert f"{cls['loss'] / inspection.terms['loss'].sum():.1%}" in lines["main/cls"]
    assert "edges" in lines["main/dfl"]


def test_the_worst_objects_come_first_and_what_is_not_finite_before_them():
    inspection = inspected()
    order = np.argsort(-inspection.objects["loss"], kind="stable")[:3]
    want = [(inspection.objects["image"][i], inspection.objects["object"][i]) for i in order]
    rows = [line.split()[:2] for line in shown(text.worst_objects(inspection, 3)).splitlines() if " x " in line]
    assert [(int(a), int(b)) for a, b in rows] == want

    losses = inspection.objects["loss"].copy()
    losses[4] = np.nan
    broken = replace(inspection, objects=inspection.objects.with_columns({"loss": losses}))
    first = next(line for line in shown(text.worst_objects(broken, 3)).splitlines() if " x " in line)
    assert "not finite" in first
    assert first.split()[:2] == [str(broken.objects["image"][4]), str(broken.objects["object"][4])]


def test_objects_without_positives_tell_why():
    lonely = shown(text.without_positive(inspected(), 2))

    assert "learns from (6)" in lonely
    assert "and 4 more" in lonely
    assert "centre outside the box" in lonely
    calm = inspected()
    calm = replace(calm, objects=calm.objects.take(calm.objects["positives"] > 0))
    assert "none" in shown(text.without_positive(calm))


@pytest.mark.parametrize("by", ["class", "size", "level", "image"])
def test_roll_ups_name_every_group(by):
    inspection = inspected()
    found = shown(text.by_group(inspection, by))

    groups = {
        "class": set(inspection.objects["class"].tolist()),
        "size": set(inspection.objects["size"].tolist()),
        "level": {str(stride) for stride in inspection.pairs["stride"].tolist()},
        "image": set(inspection.paths),
    }[by]
    for group in groups:
        assert group in found
    losses = roll_up(inspection, by)["loss"]
    assert found.count("█" * text.BAR) == (losses > losses.max() * (text.BAR - 1) / text.BAR).sum() > 0


def test_findings_put_the_worst_last_and_count_what_is_not_spelled_out():
    findings = [
        Observation("no_positive", "warning", "first", image=0, object=1),
        Observation("not_finite", "error", "second"),
        Observation("new_kind", "note", "third", count=40),
    ]
    lines = shown(text.finding_list(findings)).splitlines()

    place = {word: next(i for i, line in enumerate(lines) if word in line) for word in ("first", "second", "third")}
    assert place["third"] < place["first"] < place["second"]
    assert "Nobody learns from it" in lines[place["first"]]
    assert "new kind" in lines[place["third"]]
    assert "1 error, 1 warning, 40 notes" in shown(text.finding_list(findings))
    assert "none" in shown(text.finding_list([]))


def test_names_are_never_markup():
    names = ("[red]a[/red]", "[/bold]b", "[link=x]c", "\\[d]")
    inspection = batch(scenes()[:4], names=names)
    found = shown(text.summary(inspection, findings_of(inspection), worst=30), width=300)

    for label in set(inspection.objects["label"].tolist()):
        assert names[label] in found


def test_the_difference_of_two_sides():
    ours, theirs = inspected(), inspected(seed=50)
    found = shown(text.difference(ours, theirs, ("new", "old")))

    for term, mine, other in zip(ours.terms["term"], ours.terms["loss"], theirs.terms["loss"], strict=True):
        (line,) = [line for line in found.splitlines() if line.split()[:1] == [term]]
        change = mine - other
        assert line.split()[1:] == [f"{mine:.4g}", f"{other:.4g}", ("+" if change > 0 else "") + f"{change:.4g}"]
    assert "loss by class, new minus old" in found


def test_the_summary_holds_every_table_and_fits_a_narrow_terminal():
    found = shown(text.summary(inspected(), against=inspected(seed=50)), width=80)

    for title in ("what the loss is made of", "by class", "by size", "by level", "objects that cost most", "background",
                  "no candidate learns from", "images that cost most", "this minus against", "findings"):  # fmt: skip
        assert title in found, title
    assert max(map(len, found.splitlines())) <= 80


def test_an_inspection_of_whole_images_is_shown():
    images = Table({"image": [0], "path": ["a/b.jpg"], "label": [0], "class": ["cat"], "found_label": [1],
                    "found_class": ["dog"], "score": [0.7], "loss": [1.5], "gradient": [0.1]})  # fmt: skip
    empty = Table({})
    whole = replace(
        inspected(), images=images, objects=empty, pairs=empty, candidates=empty, background=empty, paths=("a/b.jpg",)
    )
    line = next(line for line in shown(text.summary(whole)).splitlines() if "b.jpg" in line)
    assert line.split() == ["0", "b.jpg", "1.5", "cat", "dog"]
