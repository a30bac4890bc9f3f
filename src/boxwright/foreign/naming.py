# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""From our state-dict keys to those of another code base: a table of what each kind of module calls its parts."""

from collections.abc import Callable, Mapping
from itertools import zip_longest

from torch import Tensor, nn

# Own path below a module -> published path; "" leaves the level out. A function looks at the module first.
Parts = Mapping[str, str]
Rules = Mapping[str, Parts | Callable[[nn.Module], Parts]]  # by the name of our class; subclasses inherit
LONGEST_PART = 3  # levels that one entry of a table may rename at once


def published_keys(network: nn.Module, prefixes: Mapping[str, str], rules: Rules) -> dict[str, str]:
    """For each of our state-dict keys below `prefixes` (own -> published), the key of the other code base."""
    found = {}
    starts = sorted(prefixes, key=len, reverse=True)
    for key in network.state_dict():
        start = next((start for start in starts if key == start or key.startswith(f"{start}.")), None)
        if start is not None:
            below = key[len(start) + 1 :].split(".")
            found[key] = _joined(prefixes[start], *_renamed(network.get_submodule(start), below, rules))
    return found


def layer_prefixes(network: nn.Module, layers: tuple[nn.Module, ...]) -> dict[str, str]:
    """Own path of each layer of the published table -> "model.<index>"."""
    paths = {id(module): path for path, module in network.named_modules()}
    return {paths[id(layer)]: f"model.{index}" for index, layer in enumerate(layers)}


def in_order(own: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> dict[str, str]:
    """Own key -> their key where both networks hold the same tensors in the same order under unlike names.

    Counters of batch norms are left out. The walk ends where kind or size no longer agree, so what is mapped is sure.
    """
    found = {}
    for ours, other in zip_longest(_weights(own), _weights(theirs)):
        if ours is None or other is None or _kind(ours) != _kind(other) or own[ours].numel() != theirs[other].numel():
            break
        found[ours] = other
    return found


def _weights(state: Mapping[str, Tensor]) -> list[str]:
    return [key for key in state if not key.endswith("num_batches_tracked")]


def _kind(key: str) -> str:
    return key.rpartition(".")[2]


def _renamed(module: nn.Module, parts: list[str], rules: Rules) -> list[str]:
    """The published names of a path below a module."""
    if not parts:
        return []
    table = _table(module, rules)
    for length in range(min(LONGEST_PART, len(parts)), 0, -1):
        own = ".".join(parts[:length])
        if own in table or length == 1:
            inner = module.get_submodule(own) if len(parts) > length else module
            return [table.get(own, own), *_renamed(inner, parts[length:], rules)]
    return parts


def _table(module: nn.Module, rules: Rules) -> Parts:
    for kind in type(module).__mro__:
        if kind.__name__ in rules:
            table = rules[kind.__name__]
            return table if isinstance(table, Mapping) else table(module)
    return {}


def _joined(*parts: str) -> str:
    return ".".join(part for part in parts if part)
