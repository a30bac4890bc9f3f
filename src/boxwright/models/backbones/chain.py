# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""A backbone that is a row of layers: maps are taken after some of them, channels and strides are measured."""

import copy
from collections.abc import Container, Iterable

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
        return maps_after(self.layers, self.ends, images)

    @torch.no_grad()
    def _measured(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        image = torch.empty(1, 3, MEASURING_SIDE, MEASURING_SIDE, device="meta")
        maps = maps_after(copy.deepcopy(self.layers).to("meta").eval(), self.ends, image)
        return tuple(one.shape[1] for one in maps), tuple(MEASURING_SIDE // one.shape[3] for one in maps)


def maps_after(layers: Iterable[nn.Module], ends: Container[int], x: Tensor) -> tuple[Tensor, ...]:
    """Layers one after the other; the results of those whose indices are `ends`."""
    maps = []
    for index, layer in enumerate(layers):
        x = layer(x)
        if index in ends:
            maps.append(x)
    return tuple(maps)
