# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The anchor-free dense head: per cell four distances, class logits, and what the task adds.

Source: spec/architectures 4.3, 5.1 and 5.3; bins: Generalized Focal Loss, Li et al. 2020, arXiv:2006.04388; two sets of
branches: YOLOv10, Wang et al. 2024, arXiv:2405.14458.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from boxwright.config import component
from boxwright.errors import ConfigError
from boxwright.models.blocks import Proto
from boxwright.models.heads.branches import ClassBranchName, DenseBranches, MaskConfig
from boxwright.models.network import ClassLayout
from boxwright.ops.decode import Distance, Oriented
from boxwright.ops.grid import grid_for_image
from boxwright.ops.kept_grid import image_grid
from boxwright.structures import Grid, Outputs, Predictions, Targets
from boxwright.vocabulary import AttributeSpec, KeypointSpec


class AnchorFree(DenseBranches):
    """The branches that inference reads; an end-to-end head has a second set, `one2many`, which only training reads.

    In an end-to-end head these branches see maps without gradient, so that one candidate per object does not teach the
    rest of the network, and both sets start with equal weights.
    `bins` is the frozen vector 0, 1, ..., R-1 that published checkpoints carry and count; the decoder does not read it.
    """

    def __init__(self, config: "AnchorFreeConfig", channels: Sequence[int], strides: Sequence[int]) -> None:
        super().__init__(config, channels, strides)
        self.one2many: DenseBranches | None = None
        if config.end_to_end:
            equal = self.state_dict()
            self.one2many = DenseBranches(config, channels, strides)
            self.one2many.load_state_dict(equal)
        self.proto = None
        if config.masks is not None:
            masks = config.masks
            self.proto = Proto(channels[0], masks.hidden, masks.count, upsample=masks.upsample)
        if config.num_bins > 1:
            bins = torch.arange(config.num_bins, dtype=torch.get_default_dtype())
            self.bins = nn.Parameter(bins.view(1, config.num_bins, 1, 1), requires_grad=False)
        self.role = "one2one" if config.end_to_end else "main"
        self.exclusive = config.exclusive
        self.decoder = (Oriented if config.oriented else Distance)(num_bins=config.num_bins)

    def requires_grad_(self, requires_grad: bool = True) -> "AnchorFree":
        """Makes every parameter trainable or not; the bins never are."""
        super().requires_grad_(requires_grad)
        for name, value in self.named_parameters(recurse=False):
            if name == "bins":
                value.requires_grad_(False)
        return self

    @property
    def class_rows(self) -> Mapping[str, ClassLayout]:
        """The tensors whose first axis counts classes, and where they stand, for transfer between class lists."""
        sets = ("",) if self.one2many is None else ("", "one2many.")
        levels = range(len(self.strides))
        names = (f"{of}class_branches.{i}.2.{kind}" for of in sets for i in levels for kind in ("weight", "bias"))
        return dict.fromkeys(names, ClassLayout())

    def grid(self, image_size: tuple[int, int], device: torch.device | str | None = None) -> Grid:
        """The cells of an image of (height, width) pixels."""
        return image_grid(image_size, self.strides, torch.device(device or "cpu"))

    def without_auxiliary(self) -> "AnchorFree":
        """This head, in place, without the branches that only training reads."""
        self.one2many = None
        return self

    def forward(
        self, maps: tuple[Float[Tensor, "B _ _ _"], ...], image_size: tuple[int, int], targets: Targets | None = None
    ) -> Outputs:
        """Raw predictions of every cell of the maps of an image of (height, width) pixels; `targets` are not read."""
        prototypes = None if self.proto is None else self.proto(maps[0])
        if self.one2many is None:
            return Outputs(self._predictions(self, self.role, maps, prototypes, image_size))
        alone = tuple(x.detach() for x in maps)
        still = None if prototypes is None else prototypes.detach()
        final = self._predictions(self, self.role, alone, still, image_size)
        return Outputs(final, (self._predictions(self.one2many, "one2many", maps, prototypes, image_size),))

    def _predictions(
        self,
        branches: DenseBranches,
        role: str,
        maps: Sequence[Tensor],
        prototypes: Tensor | None,
        image_size: tuple[int, int],
    ) -> Predictions:
        fields = branches.fields(maps)
        return Predictions(
            **fields,
            prototypes=prototypes,
            decoder=self.decoder,
            grid=_grid(image_size, self.strides, fields["logits"]),
            role=role,
            exclusive=self.exclusive,
        )


@component
class AnchorFreeConfig:
    """How many classes, whether they exclude one another, how many bins each distance has, and what the task adds.

    A distance reaches bins - 1 strides per side; a single bin is the distance itself, in strides.
    """

    kind: Literal["anchor_free"] = "anchor_free"
    num_classes: int = 80
    num_bins: int = 16
    exclusive: bool = False  # classes exclude one another: scores by softmax, in the loss as in decoding
    class_branch: ClassBranchName = "full"
    end_to_end: bool = False  # a second set of branches, so that inference needs no suppression
    box_bias: float = 1.0  # first value of every bin (or distance); bins alike: the middle distance
    masks: MaskConfig | None = None
    keypoints: KeypointSpec | None = None
    oriented: bool = False
    attributes: tuple[AttributeSpec, ...] = ()

    def __post_init__(self) -> None:
        if self.num_classes < 1:
            raise ConfigError(f"model.head.num_classes: expected at least 1, got {self.num_classes}")
        if self.num_bins < 1:
            raise ConfigError(f"model.head.num_bins: expected at least 1, got {self.num_bins}")
        names = [spec.name for spec in self.attributes]
        if len(set(names)) != len(names):
            raise ConfigError(f"model.head.attributes: expected different names, got {', '.join(names)}")

    def build(self, channels: Sequence[int], strides: Sequence[int]) -> AnchorFree:
        """The module with fresh weights for maps with these channels and strides."""
        return AnchorFree(self, channels, strides)


def _grid(image_size: tuple[int, int], strides: tuple[int, ...], like: Tensor) -> Grid:
    if type(like) is not Tensor:  # traced or fake tensors must not meet a grid kept from another call
        return grid_for_image(image_size, strides, like.device)
    return image_grid(image_size, strides, like.device)
