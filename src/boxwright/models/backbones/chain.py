# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""A backbone that is a row of layers: maps are taken after some of them, channels and strides are measured."""

import copy
from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

MEASURING_SIDE = 256  # px; a multiple of every stride


class Chain(nn.Module):
    """Layers one after the other, of which some results are the backbone's maps.

    `channels` and `strides` are read off a forward pass without data: a layer table does not say them reliably
    (spec/architectures 3.6, traps).
    """

    def __init__(self, layers: Iterable[nn.Module], ends: Iterable[int]) -> None:
        """`ends` are the indices of the layers whose results are returned."""
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.ends = frozenset(ends)
        self.channels, self.strides = self._measured()

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, "B _ _ _"], ...]:
        """The maps after the layers `ends`, fine to coarse."""
        x, maps = images, []
        for index, layer in enumerate(self.layers):
            x = layer(x)
            if index in self.ends:
                maps.append(x)
        return tuple(maps)

    @torch.no_grad()
    def _measured(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        x = torch.empty(1, 3, MEASURING_SIDE, MEASURING_SIDE, device="meta")
        channels, strides = [], []
        for index, layer in enumerate(copy.deepcopy(self.layers).to("meta").eval()):
            x = layer(x)
            if index in self.ends:
                channels.append(x.shape[1])
                strides.append(MEASURING_SIDE // x.shape[3])
        return tuple(channels), tuple(strides)
