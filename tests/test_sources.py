# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Every source can be opened: citations lead to headings that exist, links to files and anchors that exist."""

import importlib.util
import re
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
FOLDERS = ("src", "docs", "tests", "benchmarks", "examples", ".ci")
KINDS = {".py", ".md", ".js", ".css", ".html", ".toml", ".yaml", ".yml", ".txt", ""}
# Files that are about the forms themselves.
ABOUT = {"docs/citations.py", "docs/spec/README.md", "tests/test_sources.py"}


def load():
    spec = importlib.util.spec_from_file_location("citations", DOCS / "citations.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["citations"] = module
    spec.loader.exec_module(module)
    return module


citations = load()


def files():
    """Every file that people read, and the book it is, where it is one."""
    books = {DOCS / file: book for book, file in citations.BOOKS.items()}
    found = [file for name in FOLDERS for file in (ROOT / name).rglob("*")] + list(ROOT.glob("*"))
    for file in sorted(found):
        hidden = "__pycache__" in file.parts or file.name in ("LICENSE", "constraints.txt", "py.typed")
        if file.is_file() and file.suffix in KINDS and not hidden and file.relative_to(ROOT).as_posix() not in ABOUT:
            yield file, books.get(file)


FILES = list(files())


@cache  # three tests read every file
def prose(file):
    return list(citations.prose(file))


def test_every_citation_leads_to_a_place_that_exists():
    wrong, followed = [], 0
    for file, _ in FILES:
        for line, text in prose(file):
            for place in citations.understood(text):
                followed += 1
                if place.name not in citations.places(place.book):
                    where = f"{file.relative_to(ROOT)}:{line + text.count(chr(10), 0, place.start)}"
                    wrong.append(f"{where}: {place.book} {place.name}: no such place in {citations.BOOKS[place.book]}")
    assert not wrong, "\n".join(wrong)
    assert followed > 200  # of all folders together: a reader that finds none would pass everything


def test_a_paragraph_that_a_citation_names_exists():
    """`spec/recipe 6, "Flips"`: section 6 has a paragraph that opens with **Flips**."""
    wrong, followed = [], 0
    for file, _ in FILES:
        for _, text in prose(file):
            for book, title in re.findall(r"(spec/\w+)\s+[\w.]+,\s+\"([^\"]+)\"", text):
                followed += 1
                if f"**{title}**" not in (DOCS / citations.BOOKS[book]).read_text(encoding="utf-8"):
                    wrong.append(f"{file.relative_to(ROOT)}: {book}: no paragraph **{title}**")
    assert not wrong, "\n".join(wrong)
    assert followed >= 3


def test_no_citation_is_in_a_form_that_cannot_be_followed():
    wrong = []
    for file, book in FILES:
        for line, text in prose(file):
            for start, words, advice in citations.strays(text, book):
                where = f"{file.relative_to(ROOT)}:{line + text.count(chr(10), 0, start)}"
                wrong.append(f"{where}: {words!r}: {advice}")
    assert not wrong, "\n".join(wrong)


def test_every_link_leads_to_a_file_and_a_heading():
    wrong, followed = [], 0
    for file, _ in FILES:
        if file.suffix != ".md" or DOCS / "templates" in file.parents:
            continue
        text = re.sub(r"^```.*?^```", "", file.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            if re.match(r"[a-z]+:", link):
                continue
            followed += 1
            path, _, anchor = link.partition("#")
            target = (file.parent / path).resolve() if path else file
            known = target.exists() and target.is_relative_to(ROOT)
            if known and anchor:
                known = anchor in list(citations.anchors(target.read_text(encoding="utf-8").splitlines()))
            if not known:
                wrong.append(f"{file.relative_to(ROOT)}: {link}")
    assert not wrong, "\n".join(wrong)
    assert followed > 100


def test_pages_link_what_they_cite():
    """A reader of a page can click every citation."""
    plain = []
    for file, _ in FILES:
        if file.suffix != ".md" or DOCS not in file.parents or DOCS / "templates" in file.parents:
            continue
        text = file.read_text(encoding="utf-8")
        up = "../" * (len(file.relative_to(DOCS).parents) - 1)
        if file.name != "tour.in.md" and citations.linked(text, up) != text:
            plain.append(f"{file.relative_to(ROOT)}: link the citations; a page that is built: run `make docs`")
    assert not plain, "\n".join(plain)


@pytest.mark.parametrize("book", citations.BOOKS)
def test_every_numbered_heading_of_a_book_is_a_place(book):
    text = (DOCS / citations.BOOKS[book]).read_text(encoding="utf-8")
    numbered = re.findall(r"^#{2,4} (?:Idea |Rule )?([A-I]?\.?[\d.]*\d[a-z]?|[A-I])\b", text, re.MULTILINE)

    names = {name.rpartition(" ")[2] for name in citations.places(book)}
    assert len(numbered) >= 8
    assert set(numbered) <= names


def found(text):
    return [(place.book, place.name) for place in citations.understood(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Source: spec/losses C.2.8.", [("spec/losses", "C.2.8")]),
        ("spec/losses E.3 to E.8 and F.", [("spec/losses", "E.3"), ("spec/losses", "E.8"), ("spec/losses", "F")]),
        ("spec/losses E.1\n    (box) and H.2", [("spec/losses", "E.1")]),  # the second is a stray, see below
        ("spec/losses E.1b, as published", [("spec/losses", "E.1b")]),
        ("spec/architectures 3.2,\n4.2 and 5.", [("spec/architectures", place) for place in ("3.2", "4.2", "5")]),
        ("spec/recipe 2, step rule", [("spec/recipe", "2")]),
        ("spec/datasets case 71.", [("spec/datasets", "case 71")]),
        ("spec/datasets 3, cases 63 to 65 and 67",
         [("spec/datasets", place) for place in ("3", "case 63", "case 64", "case 65", "case 67")]),
        ("spec/datasets 5 and case 70; x", [("spec/datasets", "5"), ("spec/datasets", "case 70")]),
        ("(architecture idea 9)", [("architecture", "idea 9")]),
        ("architecture section 4, spec/recipe 2", [("architecture", "section 4"), ("spec/recipe", "2")]),
    ],
)  # fmt: skip
def test_the_forms_that_are_understood(text, expected):
    assert found(text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("see spec section 2", "spec section 2"),
        ("the spec says so", "spec says so"),
        ("Spec/Losses B.3", "Spec/Losses B.3"),
        ("spec/losses, B.3", "spec/losses, B.3"),
        ("spec/recipe section 2", "spec/recipe section 2"),
        ("spec/evaluation 3", "spec/evaluation 3"),
        ("spec/losses E.1 (scaling) and H.23", "H.23"),
        ("spec/recipe 1 (rules) and 3 to 5", "(rules) and 3"),
        ("(spec H.3)", "spec H.3)"),
        ("section 5 and case 70 of the specification", "section 5"),
        ("case 60 of the malformed-input catalogue", "malformed-input catalogue"),
        ("a comment, case 14: a box", "case 14:"),
        ("as idea 9 wants", "idea 9"),
        ("RFC, section 3.2", "section 3.2"),
        ("spec/losses H.3-H.5", "H.5"),
    ],
)
def test_what_looks_like_a_citation_and_cannot_be_followed_is_named(text, words):
    assert words in [stray for _, stray, _ in citations.strays(text)]


@pytest.mark.parametrize(
    "text",
    [
        "Wang et al. 2024, arXiv:2405.14458, sections 3.2 and 3.3.",
        "[arXiv:2010.04159](https://arxiv.org/abs/2010.04159), section 4.1 and appendix A.2 (boxes)",
        "docs/spec/losses.md",
        "a [specification](spec/README.md) of keypoints",
        "PNG specification 3rd edition",
        "in this case 3 images",
    ],
)
def test_prose_that_cites_nothing_of_ours_is_left_alone(text):
    assert not list(citations.strays(text))


def test_inside_a_book_a_bare_place_must_exist_too():
    assert not list(citations.strays("as in C.2.8 and section H", "spec/losses"))
    assert list(citations.strays("as in C.2.99", "spec/losses"))
    assert list(citations.strays("see section 44", "spec/recipe"))


def test_citations_become_links_and_code_does_not():
    text = "It is kept (spec/losses E.1 and H.22); `spec/losses H.22` is code."

    assert citations.linked(text, "../../") == (
        f"It is kept ([spec/losses E.1](../../spec/losses.md#{citations.places('spec/losses')['E.1']}) and "
        f"[H.22](../../spec/losses.md#{citations.places('spec/losses')['H.22']})); `spec/losses H.22` is code."
    )
    assert citations.linked(citations.linked(text, "../../"), "../../") == citations.linked(text, "../../")


def test_prose_of_python_is_strings_and_comments(tmp_path):
    file = tmp_path / "part.py"
    file.write_text('"""Doc."""\n\nspec = 1  # first,\n# second\nx = f"of {spec.name}"\n')

    assert list(citations.prose(file)) == [(1, "Doc."), (5, "of "), (3, "first,\nsecond")]
