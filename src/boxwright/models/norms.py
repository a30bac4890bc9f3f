# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Batch norms by the two habits of published code, and ones that never change.

Source: spec/architectures 1; frozen norms: spec/architectures 6.7.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from boxwright.models.blocks import BN_EPS, BN_MOMENTUM, Conv

# "torch": the framework's own numbers, as in DETR-like code; "yolo": those of the YOLO families.
NormName = Literal["torch", "yolo"]
_NUMBERS: dict[NormName, tuple[float, float]] = {"torch": (1e-5, 0.1), "yolo": (BN_EPS, BN_MOMENTUM)}


class FrozenBatchNorm(nn.BatchNorm2d):
    """A batch norm that takes its statistics, factors and shifts as they are, in training too; nothing in it learns.

    It holds four buffers and counts no batches. Fresh ones only divide by sqrt(1 + eps).
    """

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__(channels, eps=eps)
        for name in ("weight", "bias"):
            value = getattr(self, name).detach()
            delattr(self, name)
            self.register_buffer(name, value)
        del self.num_batches_tracked

    def forward(self, x: Float[Tensor, "B c H W"]) -> Float[Tensor, "B c H W"]:
        """The map, scaled and shifted by constants."""
        return nn.functional.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


@torch.no_grad()
def set_norms(module: nn.Module, norm: NormName, *, frozen: bool = False) -> None:
    """Gives every batch norm inside `module` the numbers of that habit, in place; `frozen` ones never change again."""
    eps, momentum = _NUMBERS[norm]
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.eps, part.momentum = eps, momentum
        if frozen and isinstance(part, Conv) and isinstance(part.bn, nn.BatchNorm2d):
            part.bn = FrozenBatchNorm(part.bn.num_features, eps)
