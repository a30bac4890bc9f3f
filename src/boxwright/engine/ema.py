# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The moving average of the weights: what validation sees and what the checkpoints hold."""

import copy
import math
from collections.abc import Mapping
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from boxwright.errors import CheckpointError

M = TypeVar("M", bound=nn.Module)


def ema_factor(updates: int, decay: float = 0.9999, warmup: float = 2000.0) -> float:
    """How much of the average is kept at update number `updates` (1 for the first): small at first, then `decay`.

    >>> round(ema_factor(1), 8), round(ema_factor(2000), 5)
    (0.00049983, 0.63206)

    Source: spec/recipe 2, EMA.
    """
    return decay * (1 - math.exp(-updates / warmup)) if warmup > 0 else decay


class Ema(Generic[M]):
    """An averaged copy of a model: every floating tensor of the state, batch statistics included.

    `module` is the copy, in eval mode and without gradients; integer tensors of the state follow the model unchanged.
    """

    def __init__(self, model: M, decay: float = 0.9999, warmup: float = 2000.0) -> None:
        self.module: M = copy.deepcopy(model).eval().requires_grad_(False)
        self.updates = 0
        self._decay = decay
        self._warmup = warmup
        averages, sources = _tensors(self.module), _tensors(model)
        floating = [name for name, tensor in sources.items() if tensor.is_floating_point()]
        counted = [name for name in sources if name not in set(floating)]
        self._averages, self._sources = [averages[n] for n in floating], [sources[n] for n in floating]
        self._counts, self._counted = [averages[n] for n in counted], [sources[n] for n in counted]

    @torch.no_grad()
    def update(self) -> None:
        """Moves the average towards the model's weights as they are now; call it after each optimizer step."""
        self.updates += 1
        factor = ema_factor(self.updates, self._decay, self._warmup)
        torch._foreach_lerp_(self._averages, self._sources, 1 - factor)
        if self._counts:
            torch._foreach_copy_(self._counts, self._counted)

    def state_dict(self) -> dict[str, Tensor | int]:
        """The averaged state and, under "updates", how many updates made it."""
        return {**self.module.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: Mapping[str, Tensor | int]) -> None:
        """Restores what `state_dict` gave."""
        tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
        updates = state.get("updates")
        if not isinstance(updates, int):
            raise CheckpointError(
                "the averaged weights of this state have no update count; the file is not a boxwright state"
            )
        self.module.load_state_dict(tensors)
        self.updates = updates


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """The live tensors (not detached copies) behind the model's state, by name."""
    named = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))
    return {name: named[name] for name in model.state_dict() if name in named}
