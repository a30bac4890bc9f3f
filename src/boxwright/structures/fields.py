# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""What the types of this room ask of the tensors they are given."""

import torch
from torch import Tensor

from boxwright.errors import ShapeError


def at_least_float32(tensor: Tensor) -> Tensor:
    """The tensor in float32, or unchanged when it is already float32 or float64."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def expect_rank(name: str, tensor: Tensor, rank: int, shape: str) -> None:
    """Raises `ShapeError` unless the tensor has `rank` axes; `shape` is what they are, in words."""
    if tensor.ndim != rank:
        raise ShapeError(f"{name}: expected {shape}, got {tuple(tensor.shape)}")
