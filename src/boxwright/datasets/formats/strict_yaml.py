# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""YAML from strangers: plain mappings, lists and scalars only, with the source text of every scalar kept.

Refused: tags, duplicate keys, merge keys, more than a few aliases, deep nesting, and files above 1 MiB.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from boxwright.errors import DataError

MAX_BYTES = 2**20
MAX_ALIASES = 50  # a dataset description has none or two
MAX_DEPTH = 20
_STANDARD = "tag:yaml.org,2002:"

ScalarKind = Literal["str", "int", "float", "bool", "null", "other"]


@dataclass(frozen=True, slots=True)
class Scalar:
    """A scalar as written, what YAML takes it for, and where it stands."""

    text: str
    kind: ScalarKind
    line: int  # from 1


Value = Scalar | list[Any] | dict[str, Any]  # Any: a Value; run-time type checkers cannot follow the recursion


@dataclass(frozen=True, slots=True)
class Document:
    """A YAML mapping and the line of each of its top-level keys."""

    values: dict[str, Value]
    lines: dict[str, int]


def load_strict(path: Path) -> Document:
    """The mapping in a YAML file; keys are the source text.

    Raises:
        DataError: not UTF-8, not YAML, not a mapping, or something that a description of data has no need for.
    """
    text = _text(path)
    try:
        _refuse_constructs(text, path)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if not isinstance(root, yaml.MappingNode):
            raise DataError(f"{path}: expected a mapping of keys to values, as in 'names: [cat, dog]'")
        values = _mapping(root, _Limits(path, len(text)))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise DataError(f"{path}{where}: not valid YAML: {getattr(error, 'problem', None) or error}") from None
    return Document(values, {key.value: key.start_mark.line + 1 for key, _ in root.value})


def _text(path: Path) -> str:
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise DataError(f"{path}: {size:,} bytes; a dataset description has at most {MAX_BYTES:,}")
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    encoding = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}, line {line}: byte 0x{data[error.start]:02x} is not {encoding.removesuffix('-sig').upper()} text; "
            "save the file as UTF-8"
        ) from None


def _refuse_constructs(text: str, path: Path) -> None:
    """Checks on the event stream, before any value is built."""
    aliases = depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        mark = event.start_mark
        line = mark.line + 1 if mark else 1
        tag = getattr(event, "tag", None)
        if tag is not None and not (tag == "!" or (tag.startswith(_STANDARD) and "python" not in tag)):
            raise DataError(f"{path}, line {line}: unsupported tag {tag!r}; only plain values are read")
        aliases += isinstance(event, yaml.AliasEvent)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if aliases > MAX_ALIASES:
            raise DataError(f"{path}, line {line}: more than {MAX_ALIASES} aliases (*name); write the values out")
        if depth > MAX_DEPTH:
            raise DataError(f"{path}, line {line}: nested more than {MAX_DEPTH} levels deep")


@dataclass(slots=True)
class _Limits:
    """Aliases make a document larger than its text: without them every value takes at least one character."""

    path: Path
    values: int
    depth: int = MAX_DEPTH


def _value(node: yaml.Node, limits: _Limits) -> Value:
    limits.values -= 1
    if isinstance(node, yaml.ScalarNode):
        kind = node.tag.removeprefix(_STANDARD)
        known: ScalarKind = kind if kind in ("str", "int", "float", "bool", "null") else "other"  # type: ignore[assignment]
        return Scalar(node.value, known, node.start_mark.line + 1)
    if limits.values < 0 or limits.depth <= 0:
        raise DataError(f"{limits.path}: aliases contain themselves or expand without measure; write the values out")
    limits.depth -= 1
    items = [_value(item, limits) for item in node.value] if isinstance(node, yaml.SequenceNode) else None
    result: Value = _mapping(node, limits) if items is None else items
    limits.depth += 1
    return result


def _mapping(node: yaml.Node, limits: _Limits) -> dict[str, Value]:
    values: dict[str, Value] = {}
    for key, item in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode) or key.tag == _STANDARD + "merge":
            raise DataError(f"{limits.path}, line {line}: expected a plain key")
        if key.value in values:
            raise DataError(f"{limits.path}, line {line}: duplicate key {key.value!r}")
        values[key.value] = _value(item, limits)
    return values
