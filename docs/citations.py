# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Citations of docs/spec and docs/architecture.md: finding them in prose, following them, turning them into links.

The forms are told in docs/spec/README.md. `understood` yields what it can follow; `strays` yields what looks like a
citation and is none of these forms, so that no citation can hide from the test that follows them.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
BOOKS = {  # what a citation calls a book -> its file below docs
    "spec/losses": "spec/losses.md",
    "spec/recipe": "spec/recipe.md",
    "spec/datasets": "spec/datasets.md",
    "spec/architectures": "spec/architectures.md",
    "architecture": "architecture.md",
}

_AND = r"(?:,\s+(?:and\s+)?|\s+and\s+|\s+to\s+)"
_LETTERED = r"[A-I](?:\.\d+[a-z]?)*(?![\w])"
_NUMBERED = r"\d+(?:\.\d+)*(?![\w])"


def _several(place: str) -> str:
    return rf"{place}(?:{_AND}{place})*"


_CASES = rf"cases?\s+{_several(_NUMBERED)}"
_CITATION = re.compile(
    rf"(?<![\w/])(?:(?P<lettered>spec/losses)\s+{_several(_LETTERED)}"
    rf"|(?P<cases>spec/datasets)\s+(?:{_several(_NUMBERED)}(?:,\s+|\s+and\s+))?{_CASES}"
    rf"|(?P<numbered>spec/(?:recipe|datasets|architectures))\s+{_several(_NUMBERED)}"
    rf"|(?P<design>architecture)\s+(?:idea|rule|section)s?\s+{_several(_NUMBERED)})"
)
_PLACE = re.compile(rf"(?P<kind>ideas?|rules?|sections?|cases?)?(?P<to>\s+to)?\s+(?P<place>{_LETTERED}|{_NUMBERED})")

# A section of a paper is no place of ours.
_PAPER = re.compile(
    r"arXiv:\d{4}\.\d{4,5}(?:\]\([^)]*\))?,?\s+(?:sections?|table|appendix)\s+[\w.]+"
    rf"(?:{_AND}(?:appendix\s+)?[A-Z]?\.?\d[\d.]*)*"
)
_LINK = re.compile(r"\[[^\]]*\]\([^)\s]+\)")  # followed by the test of links
_PATH = re.compile(r"(?:docs/|tests/)spec\b[\w/.]*")
_STRAYS = (
    (re.compile(r"(?<![\w/.])[Ss]pec/\w*[^\n]{0,12}"), "a book or a place that no citation has"),
    (re.compile(r"(?<![\w/.`\"'])[Ss]pec(?![\w/.`\"'=(])[^\n]{0,20}"), "say spec/BOOK PLACE, or specification"),
    (re.compile(r"(?<![\w/.])[A-I]\.\d+[a-z]?\b(?:\.\d+)*"), "a place without its book"),
    (re.compile(r"\0\s*\([^()\0]*\)(?:,|\s+and|\s+to)\s+\d[\d.]*"), "a place without its book"),
    (re.compile(r"\bsections?\s+(?:[A-I]\b|\d)[\w.]*"), "a section of nothing"),
    (re.compile(r"\bideas?\s+\d+"), "say architecture idea N"),
    (re.compile(r"\bcases?\s+\d+(?:\s+(?:to|and)\s+\d+|:)|\bcases?\s+\d+\s+of\s+the\b"), "say spec/datasets case N"),
    (re.compile(r"malformed[ -]input\s+catalogue|\bof\s+the\s+specification\b"), "say spec/BOOK PLACE"),
)


@dataclass(frozen=True)
class Place:
    """One place that a citation names."""

    book: str  # a key of BOOKS
    name: str  # "C.2.8", "6", "case 71", "idea 9"
    start: int  # of the words that name it, in the text
    end: int


def understood(text: str) -> Iterator[Place]:
    """Every place of every citation in a text, in order; a range of cases gives all of them."""
    for match in _CITATION.finditer(text):
        book = match["lettered"] or match["cases"] or match["numbered"] or match["design"]
        kind, last, start = "", 0, match.start()
        for part in _PLACE.finditer(text, match.start() + len(book), match.end()):
            kind = (part["kind"] or kind).rstrip("s")
            name = f"{kind} {part['place']}".strip()
            if part["to"] and kind == "case":
                for number in range(last + 1, int(part["place"])):
                    yield Place(book, f"case {number}", start, part.end())
            yield Place(book, name, start, part.end())
            last = int(part["place"]) if part["place"].isdigit() else 0
            start = part.end()


def strays(text: str, book: str | None = None) -> Iterator[tuple[int, str, str]]:
    """Offset, words and advice of everything that looks like a citation and is in no known form.

    Inside a book a bare place of its own kind ("C.2.8", "section 7") means that book: give its name.
    """
    rest = text
    for form in (_PAPER, _LINK, _CITATION, _PATH):
        rest = form.sub(lambda match: "\0" * len(match[0]), rest)
    for pattern, advice in _STRAYS:
        for match in pattern.finditer(rest):
            if book is None or not _own(match[0], book):
                yield match.start(), " ".join(match[0].replace("\0", "").split()), advice
        rest = pattern.sub(lambda match: "\0" * len(match[0]), rest)  # nothing is named twice


def _own(words: str, book: str) -> bool:
    """Whether words are a bare place that exists in the book they stand in."""
    found = re.search(rf"({_LETTERED}|{_NUMBERED})", words)
    if found is None or words.lower().startswith("spec"):
        return False
    kind = words.split()[0].lower().rstrip("s") + " " if book == "architecture" else ""
    return kind + found[0].rstrip(".") in places(book)


@cache
def places(book: str) -> dict[str, str]:
    """Every place of a book, and the anchor of the heading that it is or stands under."""
    found: dict[str, str] = {}
    points: dict[str, str] = {}
    anchor = number = ""
    in_cases = False
    lines = (HERE / BOOKS[book]).read_text(encoding="utf-8").splitlines()
    for line, slug in zip(lines, anchors(lines), strict=True):
        if slug:
            anchor, in_cases = slug, False
            title = re.match(rf"#+ (?P<kind>Idea |Rule )?(?P<number>{_LETTERED}|{_NUMBERED})\b", line)
            number = title["number"] if title else ""
            if title:
                kind = (title["kind"] or ("Section " if book == "architecture" else "")).lower()
                found[kind + number] = anchor
        elif number and (point := re.match(r"(\d+)\. ", line)):
            points[f"{number}.{point[1]}"] = anchor
        elif line.startswith("| case |"):
            in_cases = True
        elif in_cases and (row := re.match(r"\| (\d+) \|", line)):
            points[f"case {row[1]}"] = anchor
    return points | found


def anchors(lines: list[str]) -> Iterator[str]:
    """For every line of a Markdown file the anchor that a reader's browser knows it by, "" for what is no heading."""
    seen: dict[str, int] = {}
    code = False
    for line in lines:
        code ^= line.startswith("```")
        heading = re.match(r"#{1,6} (.*)", line)
        if code or not heading:
            yield ""
            continue
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading[1].strip())
        slug = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
        times = seen[slug] = seen.get(slug, -1) + 1
        yield f"{slug}-{times}" if times else slug


def linked(text: str, up: str) -> str:
    """Markdown with every citation a link; `up` leads from the page's folder to docs.

    Code is left alone, and so is a place that does not exist (the test of sources names it).
    """
    pieces = re.split(r"(```.*?```|`[^`\n]*`|\[[^\]]*\]\([^)\s]+\))", text, flags=re.DOTALL)
    return "".join(piece if index % 2 else _linked(piece, up) for index, piece in enumerate(pieces))


def _linked(text: str, up: str) -> str:
    done, out = 0, ""
    for place in understood(text):
        anchor = places(place.book).get(place.name)
        if anchor is None or place.start < done:
            continue
        words = text[place.start : place.end]
        lead = re.match(rf"(?:{_AND})?", words)
        assert lead is not None
        start = place.start + lead.end()
        out += text[done:start] + f"[{text[start : place.end]}]({up}{BOOKS[place.book]}#{anchor})"
        done = place.end
    return out + text[done:]


def prose(file: Path) -> Iterator[tuple[int, str]]:
    """First line and text of everything in a file that is written for people.

    Of Python these are strings (docstrings among them) and comments, lines of one comment joined; of Markdown all but
    blocks of Python, and of others the whole.
    """
    text = file.read_text(encoding="utf-8")
    if file.suffix != ".py":
        code = re.compile(r"^```python\n.*?^```", re.MULTILINE | re.DOTALL)
        yield 1, code.sub(lambda match: "\n" * match[0].count("\n"), text)
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
    block, first, last = "", 0, 0
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            line = token.start[0]
            if block and line != last + 1:
                yield first, block
                block = ""
            first = first if block else line
            block += ("\n" if block else "") + token.string.lstrip("# ")
            last = line
    if block:
        yield first, block
