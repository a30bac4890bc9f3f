# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The anchor-free dense head: per cell, a distribution over bins for each of four distances, and class logits.

Source: spec/architectures 4.3; bins: Generalized Focal Loss, Li et al. 2020, arXiv:2006.04388; class prior: RetinaNet,
Lin et al. 2017, arXiv:1708.02002.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from boxwright.config import component
from boxwright.errors import ConfigError
from boxwright.models.blocks import Conv
from boxwright.ops.decode import Distance
from boxwright.ops.grid import grid_for_image
from boxwright.structures import Grid, Outputs, Predictions, Targets

BOX_BIAS = 1.0  # every bin alike, so the first distance is the middle of the bins
PRIOR_OBJECTS = 5.0  # objects expected per image of PRIOR_SIDE px, spread over all cells and classes
PRIOR_SIDE = 640


class AnchorFree(nn.Module):
    """Two branches per level.

    `bins` is the frozen vector 0, 1, ..., R-1 that published checkpoints carry and count; the decoder does not read it.
    """

    def __init__(self, config: "AnchorFreeConfig", channels: Sequence[int], strides: Sequence[int]) -> None:
        super().__init__()
        sides, classes = 4 * config.num_bins, config.num_classes
        box_width = max(16, channels[0] // 4, sides)
        class_width = max(channels[0], min(classes, 100))
        self.box_branches = nn.ModuleList(_branch(width, box_width, sides) for width in channels)
        self.class_branches = nn.ModuleList(_branch(width, class_width, classes) for width in channels)
        if config.num_bins > 1:
            bins = torch.arange(config.num_bins, dtype=torch.get_default_dtype())
            self.bins = nn.Parameter(bins.view(1, config.num_bins, 1, 1), requires_grad=False)
        self.exclusive = config.exclusive
        self.strides = tuple(strides)
        self.decoder = Distance(num_bins=config.num_bins)
        self.reset_bias()

    @torch.no_grad()
    def reset_bias(self) -> None:
        """Sets the last biases: alike bins, and a class prior of a few objects per image."""
        for stride, box, score in zip(self.strides, self.box_branches, self.class_branches, strict=True):
            cells = (PRIOR_SIDE / stride) ** 2
            _bias(box).fill_(BOX_BIAS)
            _bias(score).fill_(math.log(PRIOR_OBJECTS / _bias(score).numel() / cells))

    def requires_grad_(self, requires_grad: bool = True) -> "AnchorFree":
        """Makes every parameter trainable or not; the bins never are."""
        super().requires_grad_(requires_grad)
        for name, value in self.named_parameters(recurse=False):
            if name == "bins":
                value.requires_grad_(False)
        return self

    @property
    def class_rows(self) -> tuple[str, ...]:
        """Names of the tensors whose first axis counts classes, for transfer between class lists."""
        return tuple(f"class_branches.{i}.2.{kind}" for i in range(len(self.strides)) for kind in ("weight", "bias"))

    def grid(self, image_size: tuple[int, int], device: torch.device | str | None = None) -> Grid:
        """The cells of an image of (height, width) pixels."""
        return _kept_grid(image_size, self.strides, torch.device(device or "cpu"))

    def without_auxiliary(self) -> "AnchorFree":
        """This head: all of it serves inference."""
        return self

    def forward(
        self, maps: tuple[Float[Tensor, "B _ _ _"], ...], image_size: tuple[int, int], targets: Targets | None = None
    ) -> Outputs:
        """Raw predictions of every cell of the maps of an image of (height, width) pixels; `targets` are not read."""
        boxes = [_apply(branch, x) for branch, x in zip(self.box_branches, maps, strict=True)]
        logits = [_apply(branch, x) for branch, x in zip(self.class_branches, maps, strict=True)]
        joined = join_levels(logits)
        grid = _grid(image_size, self.strides, joined)
        raw = join_levels(boxes)
        return Outputs(
            Predictions(logits=joined, box_raw=raw, decoder=self.decoder, grid=grid, exclusive=self.exclusive)
        )


def join_levels(maps: Sequence[Float[Tensor, "B n _ _"]]) -> Float[Tensor, "B A n"]:
    """All cells of all levels, level by level and row by row, copied once in the layout the maps already have."""
    if all(x.is_contiguous(memory_format=torch.channels_last) for x in maps):
        return torch.cat([x.permute(0, 2, 3, 1).flatten(1, 2) for x in maps], 1)
    return torch.cat([x.flatten(2) for x in maps], 2).transpose(1, 2)


@component
class AnchorFreeConfig:
    """How many classes, whether they exclude one another, and how many bins each distance has.

    A distance reaches bins - 1 strides per side.
    """

    kind: Literal["anchor_free"] = "anchor_free"
    num_classes: int = 80
    num_bins: int = 16
    exclusive: bool = False  # classes exclude one another: scores by softmax, in the loss as in decoding

    def __post_init__(self) -> None:
        if self.num_classes < 1:
            raise ConfigError(f"model.head.num_classes: expected at least 1, got {self.num_classes}")
        if self.num_bins < 1:
            raise ConfigError(f"model.head.num_bins: expected at least 1, got {self.num_bins}")

    def build(self, channels: Sequence[int], strides: Sequence[int]) -> AnchorFree:
        """The module with fresh weights for maps with these channels and strides."""
        return AnchorFree(self, channels, strides)


def _grid(image_size: tuple[int, int], strides: tuple[int, ...], like: Tensor) -> Grid:
    if type(like) is not Tensor:  # traced or fake tensors must not meet a grid kept from another call
        return grid_for_image(image_size, strides, like.device)
    return _kept_grid(image_size, strides, like.device)


@lru_cache(maxsize=64)  # a few hundred kB each; multi-scale training and rectangular validation use some dozens
def _kept_grid(image_size: tuple[int, int], strides: tuple[int, ...], device: torch.device) -> Grid:
    with torch.inference_mode(False):  # the next caller may be a training step
        return grid_for_image(image_size, strides, device)


def _branch(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(Conv(inputs, hidden, 3), Conv(hidden, hidden, 3), nn.Conv2d(hidden, outputs, 1))


def _apply(branch: nn.Module, x: Tensor) -> Tensor:
    """The branch, its last layer in its own precision (float32) under autocast.

    bfloat16 has 8 bits: rounded class logits tie in the ranking, and rounded bins move distances by 1/16 of a cell.
    """
    *body, last = branch.children()
    for layer in body:
        x = layer(x)
    kind = x.device.type
    if not (torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)):
        return last(x)  # type: ignore[no-any-return]
    with torch.autocast(kind, enabled=False):
        return last(x.to(next(last.parameters()).dtype))  # type: ignore[no-any-return]


def _bias(branch: nn.Module) -> Tensor:
    last = branch[-1]  # type: ignore[index]
    return last.bias  # type: ignore[no-any-return]
