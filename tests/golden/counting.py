# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""What `architectures.json` counts of a network; the file lies here or in the folder BOXWRIGHT_GOLDEN."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from boxwright.models.network import Network

FILE = Path(os.environ.get("BOXWRIGHT_GOLDEN") or Path(__file__).parent) / "architectures.json"


def numel(module: nn.Module) -> int:
    """Parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def counts_of(model: Network) -> dict[str, Any]:
    """Parameters and tensors, by the table's names."""
    state = model.state_dict()
    layers = [type(part) for part in model.modules()]
    return {
        "params": numel(model),
        "param_tensors": len(list(model.parameters())),
        "state_dict_keys": len(state),
        "state_dict_numel": sum(tensor.numel() for tensor in state.values()),
        "conv_layers": layers.count(nn.Conv2d),
        "bn_layers": layers.count(nn.BatchNorm2d),
        "stride": list(model.strides),
    }


def run_counted(model: Network, batch: int, side: int) -> tuple[Any, int]:
    """Outputs for empty images, and the multiply-accumulates of convolutions and linear layers."""
    macs = 0

    def count(module: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        nonlocal macs
        transposed = isinstance(module, nn.ConvTranspose2d)  # its kernel is laid over every input
        macs += (inputs[0] if transposed else output).numel() * module.weight[0].numel()

    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    handles = [part.register_forward_hook(count) for part in model.modules() if isinstance(part, kinds)]
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(nn.BatchNorm2d, "forward", lambda _norm, x: x)  # most of the time, and no shape depends on it
        outputs = model(torch.zeros(batch, 3, side, side, device="meta"))
    for handle in handles:
        handle.remove()
    return outputs, macs
