# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Components: frozen dataclasses that are their own config, their YAML form, and checked overrides.

A component prints, compares, serialises and runs. Python code builds it like any dataclass; `from_dict` builds it from
plain values (YAML) with pydantic, so that a mistake names its path.
"""

import dataclasses
import difflib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, dataclass_transform, get_args, get_origin, get_type_hints

import yaml

from boxwright.errors import ConfigError

T = TypeVar("T")
_NO_DEFAULT = object()

_UNKNOWN_KEY = ("unexpected_keyword_argument", "extra_forbidden")  # pydantic's names of a mistake
_MISSING_KEY = ("missing", "missing_argument", "missing_keyword_only_argument")
_WORDS = {  # by the start of pydantic's name of a mistake
    "union_tag_not_found": "a mapping with the key 'kind'",
    "model_attributes_type": "a mapping of keys to values",
    "dataclass": "a mapping of keys to values",
    "dict": "a mapping of keys to values",
    "int_": "an integer",
    "float_": "a number",
    "string_type": "text",
    "bool_": "true or false",
    "tuple_type": "a list",
    "none_required": "null",
}


@dataclass_transform(frozen_default=True, kw_only_default=True)
def component(cls: type[T]) -> type[T]:
    """Class decorator: a frozen, slotted, keyword-only dataclass that refuses unknown keys when read from a dict."""
    # Set before the dataclass is made: slots rebuild the class.
    cls.__pydantic_config__ = {"extra": "forbid", "arbitrary_types_allowed": True}  # type: ignore[attr-defined]
    return dataclasses.dataclass(frozen=True, slots=True, kw_only=True)(cls)


def to_dict(value: Any) -> Any:
    """Plain values (dict, list, str, numbers, None) of a component tree, in field order.

    Raises:
        ConfigError: a part is neither a component nor a plain value, for example a callable passed in Python.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_dict(getattr(value, field.name)) for field in dataclasses.fields(value) if field.init}
    if isinstance(value, Mapping):
        return {key: to_dict(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [to_dict(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ConfigError(f"{value!r} cannot be written as YAML: only built-in components and plain values can")


def from_dict(cls: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """A component of class `cls` from plain values; missing keys take their defaults, error paths begin with `where`.

    Raises:
        ConfigError: an unknown key, a missing key or a wrong type; one line per mistake, each starting with its path.
    """
    from pydantic import ValidationError

    try:
        return _adapter(cls).validate_python(values)  # type: ignore[no-any-return, arg-type]
    except ValidationError as error:
        raise ConfigError("\n".join(_explain_all(cls, error.errors(), where))) from None


def to_yaml(value: Any) -> str:
    """The YAML text of a component tree; `from_yaml` reads it back to an equal tree."""
    return yaml.safe_dump(to_dict(value), sort_keys=False, allow_unicode=True, width=120)


def from_yaml(cls: type[T], text: str, source: str = "config") -> T:
    """A component from YAML text; errors start with `source`, the file it came from.

    Raises:
        ConfigError: the text is not a YAML mapping, or a value does not fit.
    """
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}: not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{source}: expected a mapping of keys to values, got {type(values).__name__}")
    try:
        return from_dict(cls, values)
    except ConfigError as error:
        raise ConfigError("\n".join(f"{source}: {line}" for line in str(error).splitlines())) from None


def override(value: T, settings: Mapping[str, Any] | Sequence[str]) -> T:
    """A copy of a component tree with `a.b.c=value` settings applied and checked.

    Values given as text are read as YAML, so `train.epochs=3`, `data.names=[a, b]` and `train.lr0=null` work.
    Setting a `kind` to another member of its union keeps only the fields that the new member also has and whose values
    it takes.

    Raises:
        ConfigError: a setting without `=`, an unknown path (with the closest known name) or a wrong value.
    """
    tree = to_dict(value)
    settings = [settings] if isinstance(settings, str) else settings
    items = settings.items() if isinstance(settings, Mapping) else [_split_setting(text) for text in settings]
    for path, new in items:
        _set_path(value, tree, path, new)
    return from_dict(type(value), tree)


def replace(value: T, **changes: Any) -> T:
    """`dataclasses.replace` with a type that checkers understand for components."""
    return dataclasses.replace(value, **changes)  # type: ignore[type-var]


def suggest(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the closest known one, or all of them.

    >>> suggest("epocs", ["epochs", "batch"])
    "; did you mean 'epochs'?"
    """
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean '{close[0]}'?" if close else f"; known keys: {', '.join(known)}"


def _split_setting(text: str) -> tuple[str, Any]:
    path, equals, raw = text.partition("=")
    if not equals or not path.strip():
        raise ConfigError(f"{text}: expected a setting of the form a.b.c=value")
    try:
        parsed = yaml.safe_load(raw)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: {raw!r} is not a valid YAML value: {getattr(error, 'problem', error)}") from None
    # YAML 1.1 reads 1e-3 as text; people mean the number.
    if isinstance(parsed, str):
        parsed = _number(parsed)
    return path.strip(), parsed


def _number(text: str) -> str | float:
    try:
        return float(text) if text.lower().lstrip("+-")[:1].isdigit() else text
    except ValueError:
        return text


def _set_path(component_value: Any, tree: dict[str, Any], path: str, new: Any) -> None:
    *parents, last = path.split(".")
    node: Any = tree
    done: list[str] = []
    for name in parents:
        _require(node, name, done)
        node = node[int(name)] if isinstance(node, list) else node[name]
        done.append(name)
    _require(node, last, done)
    if last == "kind" and isinstance(node, dict) and node["kind"] != new:
        # Another member of the union: its own defaults, and the fields both members share.
        member = _member_of_kind(component_value, parents, new)
        known = {field.name: _plain_default(field) for field in dataclasses.fields(member) if field.init}
        for name in [name for name in node if name not in known or not _takes(member, name, node[name])]:
            del node[name]
        node.update(
            {name: default for name, default in known.items() if name not in node and default is not _NO_DEFAULT}
        )
    node[int(last) if isinstance(node, list) else last] = new


def _require(node: Any, name: str, done: list[str]) -> None:
    where = ".".join([*done, name])
    if isinstance(node, list):
        if not name.isdigit() or int(name) >= len(node):
            raise ConfigError(f"{where}: expected an index from 0 to {len(node) - 1}, got {name!r}")
        return
    if not isinstance(node, dict):
        raise ConfigError(f"{where}: {'.'.join(done)} is a plain value and has no keys")
    if name not in node:
        raise ConfigError(f"{where}: unknown key{suggest(name, list(node))}")


def _takes(member: type, name: str, value: Any) -> bool:
    """Whether a field may have a plain value, the others being defaults: one name may mean different things."""
    from pydantic import ValidationError

    if name == "kind":
        return True  # set afterwards
    try:
        typed = _adapter(get_type_hints(member, include_extras=True)[name]).validate_python(value)
        member(**{name: typed})
    except (ValidationError, ConfigError):
        return False
    except TypeError:  # a field without a default is missing; the type was right
        return True
    return True


def _member_of_kind(value: Any, parents: list[str], kind: Any) -> type:
    """The union's member of that kind."""
    hint: Any = type(value)
    for name in parents:
        hint = _step_into(hint, name)
    for member in _members(hint):
        fields = {field.name: field for field in dataclasses.fields(member)}
        if "kind" in fields and fields["kind"].default == kind:
            return member
    known = [f.default for m in _members(hint) for f in dataclasses.fields(m) if f.name == "kind"]
    path = ".".join([*parents, "kind"])
    raise ConfigError(f"{path}: expected one of {', '.join(map(str, known))}, got {kind!r}")


def _plain_default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return to_dict(field.default_factory())
    return _NO_DEFAULT if field.default is dataclasses.MISSING else to_dict(field.default)


def _step_into(hint: Any, name: str) -> Any:
    """The type of a key (of a component) or of an item (of a mapping or sequence)."""
    for member in _members(hint):
        hints = get_type_hints(member, include_extras=True)
        if name in hints:
            return hints[name]
    arguments = [argument for part in _alternatives(hint) for argument in get_args(part) if argument is not Ellipsis]
    return arguments[-1] if arguments else None


def _members(hint: Any) -> list[type]:
    """The dataclasses of a (possibly annotated) union."""
    return [member for member in _alternatives(hint) if isinstance(member, type) and dataclasses.is_dataclass(member)]


@cache
def _adapter(cls: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(cls)


def _explain_all(cls: type, mistakes: Sequence[Any], where: str) -> list[str]:
    """One line per path; what the members of a union expected is joined by "or"."""
    lines: dict[str, str] = {}
    expected: dict[str, dict[str, None]] = {}
    for mistake in mistakes:
        keys, parent = _walk(cls, mistake["loc"])
        path = ".".join([where, *keys] if where else keys) or cls.__name__
        if mistake["type"] in _UNKNOWN_KEY:
            known = [field.name for member in _members(parent) for field in dataclasses.fields(member)]
            lines[path] = f"{path}: unknown key{suggest(keys[-1], known)}"
        elif mistake["type"] in _MISSING_KEY:
            lines[path] = f"{path}: missing; this key has no default"
        else:
            choices = expected.setdefault(path, {})
            choices[_expectation(mistake)] = None
            lines[path] = f"{path}: expected {' or '.join(choices)}, got {mistake['input']!r}"
    return list(lines.values())


def _expectation(mistake: Any) -> str:
    """What pydantic wanted, in the words of a YAML file."""
    kind = mistake["type"]
    if kind == "union_tag_invalid":
        return f"kind {mistake['ctx']['expected_tags'].replace(', ', ' or ')}"
    for part, words in _WORDS.items():
        if kind.startswith(part):
            return words
    return str(mistake["msg"]).removeprefix("Input should be ").removeprefix("Value error, ")


def _walk(cls: Any, location: Sequence[str | int]) -> tuple[list[str], Any]:
    """The keys of a pydantic location, and the type that holds the last one.

    pydantic adds the name of a union's member to a location; here it is left out.
    """
    keys: list[str] = []
    hint, parent = cls, cls
    for part in location:
        members = _alternatives(hint)
        tagged = next((member for member in members if str(part) in _tags(member)), None)
        if len(members) > 1 and (tagged is not None or str(part) not in _keys(hint)):
            # A name that no component of the union has belongs to a union around this one: stay.
            hint = tagged if tagged is not None else (hint if _members(hint) else None)
        else:
            keys.append(str(part))
            parent, hint = hint, _step_into(hint, str(part))
    return keys, parent


def _keys(hint: Any) -> set[str]:
    """The field names of a union's components."""
    return {field.name for member in _members(hint) for field in dataclasses.fields(member)}


def _alternatives(hint: Any) -> list[Any]:
    """The members of a union other than None; of any other type, itself."""
    if get_origin(hint) is Annotated:
        return _alternatives(get_args(hint)[0])
    if get_origin(hint) in (Union, UnionType):
        return [member for part in get_args(hint) if part is not NoneType for member in _alternatives(part)]
    return [hint]


def _tags(member: Any) -> set[str]:
    """What pydantic may call a union's member in a location: its `kind`, or its name."""
    names = {getattr(member, "__name__", str(member)), str(member)}
    if isinstance(member, type) and dataclasses.is_dataclass(member):
        names |= {str(field.default) for field in dataclasses.fields(member) if field.name == "kind"}
    return names
