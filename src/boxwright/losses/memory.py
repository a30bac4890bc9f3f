# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The one thing that a criterion remembers from step to step: the level balance of terms that adapt theirs."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from boxwright.errors import ConfigError
from boxwright.losses.terms.objectness import MOMENTUM, AutoBalance, Objectness
from boxwright.ops.collective import sum_over_ranks
from boxwright.structures import Outputs, Predictions


class Memory:
    """Balances by "role/term", one float64 number per level; empty until a term that adapts has been called."""

    def __init__(self) -> None:
        self.balances: dict[str, Tensor] = {}

    def state_dict(self) -> dict[str, list[float]]:
        """The balances as plain numbers. Syncs with the device."""
        return {name: balance.tolist() for name, balance in self.balances.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes over what `state_dict` gave.

        Raises:
            ConfigError: the state is not one list of positive numbers for each term.
        """
        for name, values in state.items():
            if not isinstance(values, list) or not values or not all(isinstance(v, float) and v > 0 for v in values):
                raise ConfigError(f"criterion state of {name}: expected a list of positive numbers, got {values!r}")
        self.balances = {name: torch.tensor(values, dtype=torch.float64) for name, values in state.items()}


class Step:
    """One call of a criterion: gives terms the balance of earlier steps, and updates it afterwards."""

    def __init__(self, memory: Memory, outputs: Outputs) -> None:
        self._memory = memory
        self._grids: dict[str, list[Any]] = {}
        for preds in (*outputs.auxiliary, outputs.final):
            if preds.grid is not None:
                self._grids.setdefault(preds.role, []).append(preds.grid)
        for grids in self._grids.values():
            grids.sort(key=lambda grid: grid.first_level)
        self._seen: dict[str, list[tuple[Any, list[Tensor]]]] = {}
        self._terms: dict[str, Objectness] = {}

    def weigh(self, name: str, term: Any, preds: Predictions, contributions: Tensor) -> Tensor:
        """Contributions times their level's balance, for terms that adapt it; as they are for all others."""
        if not isinstance(term, Objectness) or not isinstance(term.balance, AutoBalance):
            return contributions
        name, sizes = f"{preds.role}/{name}", preds.cells.level_sizes
        balance = self._balance(name, term, preds.role, contributions).to(contributions.dtype)
        levels = torch.split(contributions, list(sizes), dim=1)
        if contributions.requires_grad or term.balance.in_eval:
            self._terms[name] = term
            self._seen.setdefault(name, []).append((preds.cells, [level.detach().sum() for level in levels]))
        first = preds.cells.first_level
        return torch.cat([level * balance[first + index] for index, level in enumerate(levels)], dim=1)

    def finish(self) -> None:
        """Moves the balances, once all levels were seen."""
        for name, seen in self._seen.items():  # of values that were detached, so without gradient
            balance = self._memory.balances[name].clone()
            values = {grid.first_level + i: value for grid, levels in seen for i, value in enumerate(levels)}
            losses = sum_over_ranks(torch.stack([values[level].to(balance.dtype) for level in range(len(balance))]))
            # A level without loss says nothing about its weight.
            moved = torch.where(losses > 0, balance * MOMENTUM + (1 - MOMENTUM) / losses, balance)
            strides = [stride for grid, _ in sorted(seen, key=_first) for stride in grid.level_strides]
            auto = self._terms[name].balance
            assert isinstance(auto, AutoBalance)
            self._memory.balances[name] = moved / moved[strides.index(auto.reference_stride)]

    def _balance(self, name: str, term: Objectness, role: str, like: Tensor) -> Tensor:
        start = term.start(self._grids[role])
        assert start is not None
        known = self._memory.balances.get(name)
        if known is None:
            known = torch.tensor(start, dtype=torch.float64, device=like.device)
        elif len(known) != len(start):
            raise ConfigError(f"criterion state of {name}: expected {len(start)} levels, got {len(known)}")
        self._memory.balances[name] = known.to(like.device)
        return self._memory.balances[name]


def _first(seen: tuple[Any, list[Tensor]]) -> int:
    return int(seen[0].first_level)
