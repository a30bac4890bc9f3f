# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Attention among tokens, and the small perceptron of query models.

Source: Attention Is All You Need, Vaswani et al. 2017, arXiv:1706.03762; positions added to queries and keys: DETR,
Carion et al. 2020, arXiv:2005.12872.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


class SelfAttention(nn.Module):
    """Every token reads every token. Rows of `qkv` are those of the query, the key and the value, in that order."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.qkv.weight)
        nn.init.zeros_(self.qkv.bias)
        nn.init.zeros_(self.output.bias)

    def forward(
        self,
        x: Float[Tensor, "B T d"],
        position: Float[Tensor, "#B T d"],
        blocked: Bool[Tensor, "T T"] | None = None,
    ) -> Float[Tensor, "B T d"]:
        """What every token reads; positions help to find, and are no part of what is read.

        `blocked`: whether a token (row) may not read another (column).
        """
        width = x.shape[-1]
        found = nn.functional.linear(x + position, self.qkv.weight[: 2 * width], self.qkv.bias[: 2 * width])
        value = nn.functional.linear(x, self.qkv.weight[2 * width :], self.qkv.bias[2 * width :])
        query, key, value = (
            torch.unflatten(part, -1, (self.heads, -1)).transpose(1, 2) for part in (*found.chunk(2, dim=-1), value)
        )
        mask = None if blocked is None else ~blocked
        read = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.output(read.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class MLP(nn.Module):
    """Linear layers with ReLU between them, of these widths."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(widths))

    def forward(self, x: Float[Tensor, "*n i"]) -> Float[Tensor, "*n o"]:
        """The last layer's values."""
        for layer in self.layers[:-1]:
            x = layer(x).relu()
        return self.layers[-1](x)  # type: ignore[no-any-return]
