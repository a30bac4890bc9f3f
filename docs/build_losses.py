# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Builds docs/losses: one page per assigner and term, from a template, the code itself and numbers computed here.

A template is Markdown. `{{ expression }}` is replaced by its value; the names it may use are the functions of
docs/figures. `{{ figure("name", "caption") }}` draws a picture. What the code says is not repeated in a template: the
title, the first paragraph, the settings with their defaults, the gains and the source come from the class.
"""

import argparse
import dataclasses
import inspect
import re
import sys
import textwrap
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # docs/figures, wherever this is started from

import citations  # noqa: E402

from boxwright import losses  # noqa: E402
from boxwright.config import _members  # noqa: E402
from boxwright.errors import DataError  # noqa: E402
from boxwright.losses import dense_recipes, query_recipes, recipes  # noqa: E402
from boxwright.losses.assign import Assigner  # noqa: E402
from boxwright.losses.criterion import Criterion  # noqa: E402
from boxwright.losses.terms import BuiltInTerm  # noqa: E402

TEMPLATES = HERE / "templates"
PAGES = HERE / "losses"
SECTIONS = ("Formula", "Picture", "When to use it", "Published mistakes")
UNIONS: dict[str, Any] = {"assigners": Assigner, "terms": BuiltInTerm}
NOTE = "<!-- Made by docs/build_losses.py from {source}; change that, then `make docs`. -->"
PLAIN = {float: "number", int: "whole number", bool: "true or false", str: "text", type(None): "null"}


def parts() -> Iterator[tuple[str, type]]:
    """Folder and class of every built-in assigner and term."""
    for folder, union in UNIONS.items():
        for part in sorted(_members(union), key=lambda part: part.__name__):
            yield folder, part


def kind_of(part: type) -> str:
    """The name a part has in YAML, which is the name of its page."""
    return str(next(field.default for field in dataclasses.fields(part) if field.name == "kind"))


def build(draw: bool = True, out: Path = PAGES) -> dict[Path, str]:
    """Text of every page by its path relative to `out`; pictures are written there when `draw` is true.

    Raises:
        DataError: a part has no template, or a template lacks a section or names what does not exist.
    """
    names = namespace(out if draw else None)
    pages = {}
    for folder, part in parts():
        path = Path(folder) / f"{kind_of(part)}.md"
        text = page(part, read_template(part, path), names | {"up": "../"}, path)
        pages[path] = citations.linked(text, "../../")
    for path in ("index.md", "using.md"):
        text = fill((TEMPLATES / path).read_text(encoding="utf-8"), names | {"up": "", "contents": contents}, path)
        pages[Path(path)] = NOTE.format(source=f"docs/templates/{path}") + "\n\n" + citations.linked(text, "../")
    unused = {file.relative_to(TEMPLATES) for file in TEMPLATES.rglob("*.md")} - set(pages)
    if unused:
        raise DataError(f"docs/templates/{min(unused)}: no assigner or term of that kind is listed; remove the file")
    return pages


def namespace(out: Path | None) -> dict[str, Any]:
    """The names that templates may use."""
    import figures

    images = None if out is None else out / "images"
    found = {name: getattr(figures, name) for name in figures.__all__}
    classes = {part.__name__: part for _, part in parts()}
    return classes | found | {"figure": figures.Figures(images), "code": code}


def code(*definitions: types.FunctionType) -> str:
    """The source of some functions as it stands in the package."""
    texts = [textwrap.dedent(inspect.getsource(definition)).rstrip() for definition in definitions]
    return "```python\n" + "\n\n".join(texts) + "\n```"


def read_template(part: type, path: Path) -> str:
    """The template of a part.

    Raises:
        DataError: there is none, or a section is missing.
    """
    file = TEMPLATES / path
    if not file.is_file():
        raise DataError(
            f"docs/templates/{path}: missing; {part.__name__} is a built-in part without a page. Write the file with "
            f"the sections {', '.join(SECTIONS)} and run `make docs`"
        )
    text = file.read_text(encoding="utf-8")
    missing = [name for name in SECTIONS if f"## {name}\n" not in text]
    if missing:
        raise DataError(f"docs/templates/{path}: expected the section '## {missing[0]}', found none")
    return text


def page(part: type, template: str, names: dict[str, Any], path: Path) -> str:
    """The finished page of a part."""
    summary, source = docstring(part)
    text = fill(template, names | {"part": part}, str(path)).strip()
    used: list[str] = []
    for name, criterion in complete_criteria().items():
        plain, option, _ = name.partition("(")
        # A switch is worth a line where it brings the part in.
        if not option or not any(line.startswith(f"- `{plain}`") for line in used):
            used += [f"- `{name}`: {what}" for what in uses(criterion, part)]
    return (
        "\n\n".join(
            (
                NOTE.format(source=f"docs/templates/{path}"),
                f"# {part.__name__}",
                summary,
                text,
                "## Settings and defaults",
                settings(part),
                "## In complete criteria",
                "\n".join(used) or f"In none; put it into a `Rule` yourself: `{part.__name__}(...)`.",
                "## Source",
                source,
            )
        )
        + "\n"
    )


def fill(template: str, names: dict[str, Any], where: str) -> str:
    """The template with every {{ expression }} replaced by its value.

    Raises:
        DataError: an expression fails; says which.
    """

    def value(match: re.Match[str]) -> str:
        expression = match.group(1).strip()
        names["figure"].up = names["up"]
        try:
            return str(eval(expression, dict(names)))
        except Exception as error:
            raise DataError(f"docs/templates/{where}: {{{{ {expression} }}}}: {error!r}") from error

    return re.sub(r"\{\{(.+?)\}\}", value, template, flags=re.DOTALL)


def docstring(part: type) -> tuple[str, str]:
    """What a class says it is, and where it comes from; one line per paragraph."""
    head, _, source = inspect.getdoc(part).partition("Source:")
    if not source:
        source = (inspect.getdoc(sys.modules[part.__module__]) or "").partition("Source:")[2]
    paragraphs = [" ".join(block.split()) for block in head.strip().split("\n\n")]
    papers = re.sub(r"arXiv:(\d{4}\.\d{4,5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", " ".join(source.split()))
    return "\n\n".join(paragraphs), papers


def settings(part: type) -> str:
    """A table of the fields of a part: name, choices, default, and the comment beside it."""
    hints = get_type_hints(part)
    comments = comments_of(part)
    rows = []
    for field in dataclasses.fields(part):
        if field.name == "kind" or not field.init:
            continue
        default = "" if field.default is dataclasses.MISSING else f"`{plain(field.default)}`"
        cells = (f"`{field.name}`", words(hints[field.name]), default, comments.get(field.name, ""))
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    if not rows:
        return "It has none."
    return "\n".join(("| setting | values | default | meaning |", "|---|---|---|---|", *rows))


def plain(value: Any) -> str:
    """A default as YAML writes it."""
    if dataclasses.is_dataclass(value):
        return value.kind
    return (
        {None: "null", True: "true", False: "false"}.get(value, str(value))
        if not isinstance(value, float)
        else (f"{value:g}")
    )


def words(hint: Any) -> str:
    """The choices of a type in words."""
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(words(member) for member in get_args(hint)))
    if get_origin(hint) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(hint))
    if get_origin(hint) is tuple:
        return "list of " + {"number": "numbers"}.get(words(get_args(hint)[0]), words(get_args(hint)[0]))
    if hint in PLAIN:
        return PLAIN[hint]
    return f"`{getattr(hint, '__name__', hint)}`"


def comments_of(part: type) -> dict[str, str]:
    """The comment at the end of each field's line, or on the lines above it."""
    found: dict[str, str] = {}
    above: list[str] = []
    for line in textwrap.dedent(inspect.getsource(part)).splitlines():
        field = re.match(r"    (\w+): .*?=[^#]*(?:#\s*(.*))?$", line)
        if re.match(r"    #", line):
            above.append(line.strip("# "))
        elif field:
            text = " ".join((*above, field.group(2) or "")).strip()
            found[field.group(1)] = text[:1].upper() + text[1:] if text and not text.startswith("px") else text
            above = []
        elif line.startswith("    def "):
            break
        else:
            above = []
    return found


def complete_criteria() -> dict[str, Criterion]:
    """Every criterion that can be called by name."""
    made: dict[str, Any] = {}
    for module in (dense_recipes, recipes, query_recipes):
        for name, function in sorted(vars(module).items()):
            if name not in losses.__all__ or inspect.getmodule(function) is not module:
                continue
            signature = inspect.signature(function)
            if signature.return_annotation is Criterion:
                made[name] = function()
                for option, value in switches(signature):
                    made[f"{name}({option}={value!r})"] = function(**{option: value})
    return made


def switches(signature: inspect.Signature) -> Iterator[tuple[str, Any]]:
    """Options that can be true, or are one of some words, with every value but the default."""
    for option in signature.parameters.values():
        if option.default is False:
            yield option.name, True
        elif get_origin(option.annotation) is Literal:
            yield from ((option.name, value) for value in get_args(option.annotation) if value != option.default)


def uses(criterion: Criterion, part: type) -> Iterator[str]:
    """Where a criterion uses a part, and with which gain."""
    several = len(criterion.rules) > 1
    for role, rule in criterion.rules.items():
        where = f" of `{role}`" if several else ""
        if isinstance(rule.assigner, part):
            yield f"assigner{where}"
        for name, weighted in rule.terms.items():
            if isinstance(weighted.term, part):
                gain = f"{weighted.gain:g}" if isinstance(weighted.gain, int | float) else str(weighted.gain)
                yield f"term `{name}`{where}, gain {gain}"


def contents(folder: str) -> str:
    """A table of the pages of a folder."""
    rows = []
    for where, part in parts():
        if where == folder:
            first = docstring(part)[0].split("\n\n")[0]
            rows.append(f"| [{part.__name__}]({folder}/{kind_of(part)}.md) | {first.replace('|', chr(92) + '|')} |")
    return "\n".join(("| page | what it is |", "|---|---|", *rows))


def main() -> None:
    """Writes pages and pictures, and removes those that no part has any more."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=PAGES)
    out = parser.parse_args().out
    pages = build(out=out)
    for path, text in pages.items():
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        (out / path).write_text(text, encoding="utf-8")
    shown = {name for text in pages.values() for name in re.findall(r"images/([\w.-]+)", text)}
    for file in (*out.rglob("*.md"), *(out / "images").glob("*.png")):
        if file.relative_to(out) not in pages and file.name not in shown:
            file.unlink()
    print(f"{len(pages)} pages, {len(shown)} pictures in {out}")  # noqa: T201


if __name__ == "__main__":
    main()
