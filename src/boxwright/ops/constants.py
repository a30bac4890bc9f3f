# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Numbers of a config as tensors, without making the host wait for the device."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def constant(values: Sequence[float | int], like: Tensor) -> Float[Tensor, " n"]:
    """The numbers with the dtype and on the device of `like`; on a GPU through page-locked memory, so nobody waits.

    >>> constant((1.0, 2.0), torch.zeros(1, dtype=torch.float64)).tolist()
    [1.0, 2.0]
    """
    numbers = torch.tensor(tuple(values), dtype=like.dtype, device="cpu")
    if like.device.type != "cuda":
        return numbers.to(like.device)
    return numbers.pin_memory().to(like.device, non_blocking=True)
