# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""A checkpoint of another code base: its tensors by state-dict key, and what else it says about itself."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from boxwright.errors import CheckpointError
from boxwright.foreign.archive import read_torch_file
from boxwright.foreign.machine import ForeignObject
from boxwright.models.weights import read_state

# Where files keep a network, best first: averaged weights before those of the last step.
PLACES = ("ema", "model", "state_dict", "model_state_dict", "module", "net", "weights")
WRAPPERS = ("module.", "_orig_mod.", "model.model.")  # what parallel or compiled training puts before every key
DEEPEST = 64  # modules inside modules
MOST_MODULES = 100_000


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Tensors in float32 (counters stay integers) by the key of the published state dict, and plain facts."""

    path: Path
    tensors: Mapping[str, Tensor]
    place: str = ""  # the part of the file they were taken from: "ema", "model", ...; empty: the file itself
    names: tuple[str, ...] | None = None  # of the classes
    facts: Mapping[str, Any] | None = None  # attributes of the model object: "yaml", "kpt_shape", "task", ...
    eps: Mapping[str, float] | None = None  # of normalisation layers, by path; only model objects say

    def fact(self, name: str) -> Any:
        """An attribute of the model object, or an entry of its table of layers; None where there is none."""
        facts = self.facts or {}
        table = facts.get("yaml")
        return facts.get(name, table.get(name) if isinstance(table, Mapping) else None)


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads `.pt`, `.pth` or `.safetensors`, without running anything in it.

    Raises:
        CheckpointError: the file is missing, damaged, asks for more than tensors and plain containers, or holds no
            tensors.
    """
    if path.suffix == ".safetensors":
        return Checkpoint(path, _floats(_unwrapped(read_state(path)), path))
    found = read_torch_file(path)
    place, model = _model_of(found, path)
    parts = dict(_modules(model, path)) if isinstance(model, ForeignObject) else {}
    tensors = dict(_tensors(parts)) if parts else {k: v for k, v in model.items() if isinstance(v, Tensor)}
    facts = {
        name: value
        for name, value in (model.state if isinstance(model, ForeignObject) else {}).items()
        if not name.startswith("_") and not isinstance(value, Tensor)
    }
    outer = found if isinstance(found, Mapping) else {}
    names = _names(facts.get("names")) or _names(outer.get("names")) or _names(outer.get("CLASSES"))
    eps = {name: part.state["eps"] for name, part in parts.items() if isinstance(part.state.get("eps"), float)}
    return Checkpoint(path, _floats(_unwrapped(tensors), path), place, names, facts, _unwrapped(eps))


def _model_of(found: Any, path: Path) -> tuple[str, Any]:
    """The network inside a file's value, and the way to it."""
    way: list[str] = []
    for _ in range(4):  # {"ema": {"module": {...}}}
        if isinstance(found, ForeignObject) or _is_state(found):
            return ".".join(way), found
        if not isinstance(found, Mapping):
            break
        places = [name for name in PLACES if isinstance(found.get(name), ForeignObject | Mapping)]
        if not places:
            break
        way.append(places[0])
        found = found[places[0]]
    held = ", ".join(map(str, list(found)[:8])) if isinstance(found, Mapping) else type(found).__name__
    raise CheckpointError(
        f"{path}: holds no network; expected a state dict, or one under {', '.join(PLACES)}; got {held or 'nothing'}"
    )


def _is_state(found: Any) -> bool:
    return isinstance(found, Mapping) and any(isinstance(value, Tensor) for value in found.values())


def _modules(model: ForeignObject, path: Path) -> Iterator[tuple[str, ForeignObject]]:
    """Every module of a model object by its path, in the order `state_dict` goes; other objects are not walked."""
    waiting, count = [("", model, 0)], 0
    while waiting:
        place, record, depth = waiting.pop()
        count += 1
        if depth > DEEPEST or count > MOST_MODULES:
            raise CheckpointError(f"{path}: modules without end at {place[:80]}; the file is damaged")
        yield place, record
        children = [(name, part) for name, part in _entries(record, "_modules") if isinstance(part, ForeignObject)]
        waiting += [(f"{place}.{name}" if place else name, part, depth + 1) for name, part in reversed(children)]


def _tensors(parts: Mapping[str, ForeignObject]) -> Iterator[tuple[str, Tensor]]:
    """Keys and tensors as `state_dict` would give them."""
    for place, record in parts.items():
        transient = record.state.get("_non_persistent_buffers_set") or ()
        for group in ("_parameters", "_buffers"):
            for name, value in _entries(record, group):
                if isinstance(value, Tensor) and not (group == "_buffers" and name in transient):
                    yield f"{place}.{name}" if place else name, value


def _entries(record: ForeignObject, group: str) -> list[tuple[str, Any]]:
    held = record.state.get(group)
    return [(str(name), value) for name, value in held.items()] if isinstance(held, Mapping) else []


def _unwrapped(by_key: dict[str, Any]) -> dict[str, Any]:
    for wrapper in WRAPPERS:
        if by_key and all(key.startswith(wrapper) for key in by_key):
            short = "model." if wrapper == "model.model." else ""
            by_key = {short + key[len(wrapper) :]: value for key, value in by_key.items()}
    return by_key


def _floats(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    for key, value in tensors.items():
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise CheckpointError(f"{path}: {key[:80]} has shape {tuple(value.shape)}, more than the file holds")
    return {key: (value.float() if value.is_floating_point() else value).contiguous() for key, value in tensors.items()}


def _names(value: Any) -> tuple[str, ...] | None:
    """Class names from a list, or from a dict by index."""
    if isinstance(value, Mapping):
        if set(value) != set(range(len(value))):
            return None
        value = [value[index] for index in range(len(value))]
    if isinstance(value, list | tuple) and value and all(isinstance(name, str | int) for name in value):
        return tuple(map(str, value))
    return None
