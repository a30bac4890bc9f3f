# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The one thing that a criterion remembers from step to step: the level balance of terms that adapt theirs."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from boxwright.errors import ConfigError
from boxwright.losses.terms.base import LevelBalance
from boxwright.ops.collective import sum_over_ranks
from boxwright.structures import Grid, Outputs, Predictions


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
        self._grids: dict[str, list[Grid]] = {}
        for preds in (*outputs.auxiliary, outputs.final):
            if preds.grid is not None:
                self._grids.setdefault(preds.role, []).append(preds.grid)
        for grids in self._grids.values():
            grids.sort(key=lambda grid: grid.first_level)
        self._seen: dict[str, list[tuple[Grid, list[Tensor]]]] = {}
        self._rules: dict[str, LevelBalance] = {}

    def weigh(self, name: str, term: Any, preds: Predictions, contributions: Tensor) -> Tensor:
        """Contributions times their level's balance, for terms that adapt it; as they are for all others."""
        rule: LevelBalance | None = getattr(term, "remembers", None)
        if rule is None:
            return contributions
        name, sizes = f"{preds.role}/{name}", preds.cells.level_sizes
        balance = self._balance(name, rule, preds.role, contributions).to(contributions.dtype)
        levels = torch.split(contributions, list(sizes), dim=1)
        if rule.moves(contributions.requires_grad):
            self._rules[name] = rule
            self._seen.setdefault(name, []).append((preds.cells, [level.detach().sum() for level in levels]))
        first = preds.cells.first_level
        return torch.cat([level * balance[first + index] for index, level in enumerate(levels)], dim=1)

    def finish(self) -> None:
        """Moves the balances, once all levels were seen."""
        for name, seen in self._seen.items():  # of values that were detached, so without gradient
            balance = self._memory.balances[name].clone()
            values = {grid.first_level + i: value for grid, levels in seen for i, value in enumerate(levels)}
            losses = sum_over_ranks(torch.stack([values[level].to(balance.dtype) for level in range(len(balance))]))
            grids = [grid for grid, _ in sorted(seen, key=_first)]
            self._memory.balances[name] = self._rules[name].moved(balance, losses, grids)

    def _balance(self, name: str, rule: LevelBalance, role: str, like: Tensor) -> Tensor:
        start = rule.start_for(self._grids[role])
        known = self._memory.balances.get(name)
        if known is None:
            known = torch.tensor(start, dtype=torch.float64, device=like.device)
        elif len(known) != len(start):
            raise ConfigError(f"criterion state of {name}: expected {len(start)} levels, got {len(known)}")
        self._memory.balances[name] = known.to(like.device)
        return self._memory.balances[name]


def _first(seen: tuple[Grid, list[Tensor]]) -> int:
    return seen[0].first_level
