# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""A reader of the pickle format that can only make plain values: it looks up no code and calls none.

A pickle is a program for a small stack machine. This one knows the instructions that build numbers, text and
containers. A name that the file asks for is looked up in a table the caller gives, never imported; a name that is not
there ends the reading. Objects of a few named packages become a `ForeignObject`: the name of their class
and their attributes.

Source: the format as Python documents it, https://docs.python.org/3/library/pickletools.html
"""

import pickletools
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from io import BufferedIOBase
from typing import IO, Any, cast

MOST_INSTRUCTIONS = 10_000_000  # the largest published checkpoint has some 300 000
_MARK = object()
_PLAIN = (str, bytes, int, float, bool, type(None))
_IGNORED = {"PROTO", "FRAME"}
_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}


class RefusedError(Exception):
    """The file asks for something that only running code could give; the message names it."""


class DamagedError(Exception):
    """The file is not a whole pickle."""


@dataclass(slots=True, eq=False)
class ForeignObject:
    """An object of the file: the full name of its class, and its attributes. No such class exists here."""

    kind: str
    state: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Name:
    """A name the file asked for: a known function, or the class of a record."""

    path: str
    known: Callable[..., Any] | None = None


@dataclass(frozen=True)
class Reader:
    """What a file may ask for."""

    functions: Mapping[str, Callable[..., Any]] = field(default_factory=dict)  # ours, by the name the file uses
    values: Mapping[str, Any] = field(default_factory=dict)  # constants, by name
    record_packages: Sequence[str] = ()  # classes below these may appear as records
    persistent: Callable[[Any], Any] | None = None  # gives what lies outside the pickle

    def read(self, file: BufferedIOBase) -> Any:
        """The value of one pickle; the file is left right behind it.

        Raises:
            RefusedError: it asks for a name or an instruction that is not known here.
            DamagedError: it ends early or makes no sense.
        """
        stack = _Stack(self)
        try:
            for count, (instruction, argument, _) in enumerate(pickletools.genops(cast("IO[bytes]", file))):
                if count > MOST_INSTRUCTIONS:
                    raise DamagedError(f"more than {MOST_INSTRUCTIONS} instructions")
                if instruction.name == "STOP":
                    return stack.pop()
                stack.run(instruction.name, argument)
        except (ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError, RecursionError) as error:
            raise DamagedError(str(error) or type(error).__name__) from error
        raise DamagedError("it has no end")

    def find(self, module: str, name: str) -> Any:
        """What a name of the file stands for here."""
        path = f"{module}.{name}"
        if path in self.values:
            return self.values[path]
        if path in self.functions:
            return Name(path, self.functions[path])
        if any(path.startswith(f"{package}.") for package in self.record_packages):
            return Name(path)
        raise RefusedError(f"'{path}'")


class _Stack:
    """The machine's memory and its instructions."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.items: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, name: str, argument: Any) -> None:
        if name in _IGNORED:
            return
        if name in _LITERALS:
            self.items.append(argument)
        elif name in _CONSTANTS:
            self.items.append(_CONSTANTS[name])
        elif name in _INSTRUCTIONS:
            _INSTRUCTIONS[name](self, argument)
        elif name in ("INST", "EXT1", "EXT2", "EXT4"):
            asked = str(argument).replace(" ", ".") if name == "INST" else f"extension {argument}"
            raise RefusedError(f"'{asked}'")
        elif name == "OBJ":
            made = self.pop_marked()
            asked = made[0].path if made and isinstance(made[0], Name) else "an unnamed object"
            raise RefusedError(f"'{asked}'")
        else:
            raise RefusedError(f"the instruction {name}")

    def pop(self) -> Any:
        value = self.items.pop()
        if value is _MARK:
            raise DamagedError("a mark where a value belongs")
        return value

    def top(self) -> Any:
        return self.items[-1]

    def pop_marked(self) -> list[Any]:
        for start in range(len(self.items) - 1, -1, -1):
            if self.items[start] is _MARK:
                values = self.items[start + 1 :]
                del self.items[start:]
                return values
        raise DamagedError("a mark is missing")

    def pop_many(self, count: int) -> list[Any]:
        return [self.pop() for _ in range(count)][::-1]

    def put(self, value: Any) -> None:
        self.items.append(value)

    def global_(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self.put(self.reader.find(module, name))

    def stack_global(self, _: Any) -> None:
        module, name = self.pop_many(2)
        if not isinstance(module, str) or not isinstance(name, str):
            raise DamagedError("a name that is not text")
        self.put(self.reader.find(module, name))

    def reduce(self, _: Any) -> None:
        function, arguments = self.pop_many(2)
        if not isinstance(function, Name) or not isinstance(arguments, tuple):
            raise RefusedError("a call of something that is no function")
        if function.known is None:
            raise RefusedError(f"'{function.path}' as a function")
        self.put(function.known(*arguments))

    def new_object(self, arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> None:
        kind = self.pop()
        if not isinstance(kind, Name):
            raise RefusedError("an object of something that is no class")
        if kind.known is not None:
            self.put(kind.known(*arguments, **keywords))
        elif arguments or keywords:
            raise RefusedError(f"'{kind.path}' with arguments")
        else:
            self.put(ForeignObject(kind.path))

    def newobj(self, _: Any) -> None:
        self.new_object(self.pop(), {})

    def newobj_ex(self, _: Any) -> None:
        arguments, keywords = self.pop_many(2)
        self.new_object(arguments, keywords)

    def build(self, _: Any) -> None:
        state, target = self.pop(), self.top()
        if isinstance(target, OrderedDict):
            return  # attributes of a dict, such as the versions of a state dict
        if not isinstance(target, ForeignObject):
            raise RefusedError(f"attributes for a {type(target).__name__}")
        for part in state if isinstance(state, tuple) else (state,):
            if part is not None:
                target.state.update({_text(key): value for key, value in part.items()})

    def persistent(self, _: Any) -> None:
        asked = self.pop()
        if self.reader.persistent is None:
            raise RefusedError("something outside the file")
        self.put(self.reader.persistent(asked))

    def setitems(self, values: list[Any]) -> None:
        target = self.top()
        if not isinstance(target, dict):
            raise DamagedError("entries for something that is no dict")
        for key, value in zip(values[::2], values[1::2], strict=True):
            target[_key(key)] = value

    def extend(self, values: list[Any]) -> None:
        target = self.top()
        if not isinstance(target, list):
            raise DamagedError("entries for something that is no list")
        target.extend(values)

    def add(self, values: list[Any]) -> None:
        target = self.top()
        if not isinstance(target, set):
            raise DamagedError("entries for something that is no set")
        target.update(map(_key, values))

    def dict_(self, _: Any) -> None:
        values = self.pop_marked()
        self.put({})
        self.setitems(values)

    def keep(self, index: int | None) -> None:
        self.memo[len(self.memo) if index is None else int(index)] = self.top()


def _key(value: Any) -> Any:
    """A key of a dict or set: plain values and flat tuples of them, so that no hash can take forever."""
    parts = value if isinstance(value, tuple) else (value,)
    if not all(isinstance(part, _PLAIN) for part in parts):
        raise DamagedError(f"a key of kind {type(value).__name__}")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise DamagedError(f"an attribute named by a {type(value).__name__}")
    return value


_INSTRUCTIONS: dict[str, Callable[[_Stack, Any], object]] = {
    "MARK": lambda stack, _: stack.put(_MARK),
    "POP": lambda stack, _: stack.items.pop(),
    "POP_MARK": lambda stack, _: stack.pop_marked(),
    "DUP": lambda stack, _: stack.put(stack.top()),
    "EMPTY_LIST": lambda stack, _: stack.put([]),
    "EMPTY_TUPLE": lambda stack, _: stack.put(()),
    "EMPTY_DICT": lambda stack, _: stack.put({}),
    "EMPTY_SET": lambda stack, _: stack.put(set()),
    "LIST": lambda stack, _: stack.put(stack.pop_marked()),
    "TUPLE": lambda stack, _: stack.put(tuple(stack.pop_marked())),
    "TUPLE1": lambda stack, _: stack.put(tuple(stack.pop_many(1))),
    "TUPLE2": lambda stack, _: stack.put(tuple(stack.pop_many(2))),
    "TUPLE3": lambda stack, _: stack.put(tuple(stack.pop_many(3))),
    "DICT": _Stack.dict_,
    "FROZENSET": lambda stack, _: stack.put(frozenset(map(_key, stack.pop_marked()))),
    "APPEND": lambda stack, _: stack.extend([stack.pop()]),
    "APPENDS": lambda stack, _: stack.extend(stack.pop_marked()),
    "SETITEM": lambda stack, _: stack.setitems(stack.pop_many(2)),
    "SETITEMS": lambda stack, _: stack.setitems(stack.pop_marked()),
    "ADDITEMS": lambda stack, _: stack.add(stack.pop_marked()),
    "PUT": _Stack.keep,
    "BINPUT": _Stack.keep,
    "LONG_BINPUT": _Stack.keep,
    "MEMOIZE": _Stack.keep,
    "GET": lambda stack, index: stack.put(stack.memo[int(index)]),
    "BINGET": lambda stack, index: stack.put(stack.memo[index]),
    "LONG_BINGET": lambda stack, index: stack.put(stack.memo[index]),
    "GLOBAL": _Stack.global_,
    "STACK_GLOBAL": _Stack.stack_global,
    "REDUCE": _Stack.reduce,
    "NEWOBJ": _Stack.newobj,
    "NEWOBJ_EX": _Stack.newobj_ex,
    "BUILD": _Stack.build,
    "BINPERSID": _Stack.persistent,
}
