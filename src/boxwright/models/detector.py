# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""A detector is a backbone, a neck and a head; its config is data and builds it."""

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from boxwright.config import component
from boxwright.errors import ShapeError
from boxwright.models.backbones import BackboneConfig
from boxwright.models.backbones.csp import CSPConfig
from boxwright.models.heads import HeadConfig
from boxwright.models.heads.anchor_free import AnchorFreeConfig
from boxwright.models.necks import NeckConfig
from boxwright.models.necks.pan import PANConfig
from boxwright.models.network import ClassLayout, Network
from boxwright.structures import Grid, Outputs, Targets


class Detector(Network):
    """Images in 0..1 to raw predictions."""

    def __init__(self, config: "DetectorConfig") -> None:
        super().__init__()
        self.config = config
        self.backbone = config.backbone.build()
        self.neck = config.neck.build(self.backbone.channels, self.backbone.strides)
        self.head = config.head.build(self.neck.channels, self.neck.strides)

    @property
    def strides(self) -> tuple[int, ...]:  # type: ignore[override]
        """Pixels per cell of each level, fine to coarse."""
        return self.head.strides

    @property
    def num_classes(self) -> int:  # type: ignore[override]
        """Number of classes of the logits."""
        return self.config.head.num_classes

    @property
    def class_rows(self) -> Mapping[str, ClassLayout]:
        """The tensors whose first axis counts classes, and where on it the classes stand, for `load_weights`."""
        return {f"head.{name}": layout for name, layout in self.head.class_rows.items()}

    @property
    def constants(self) -> tuple[str, ...]:
        """Names of tensors that the config decides: `load_weights` never takes them from a file."""
        return tuple(f"head.{name}" for name in getattr(self.head, "constants", ()))

    @property
    def layers(self) -> tuple[nn.Module, ...]:
        """The parts in the order of the published layer table; the head is the last."""
        return (*self.backbone.layers, *self.neck.layers, self.head)

    def grid(self, image_size: tuple[int, int], device: torch.device | str | None = None) -> Grid | None:
        """The candidates of an image of (height, width) pixels; None for queries."""
        return self.head.grid(image_size, device)

    def forward(self, images: Float[Tensor, "B 3 H W"], targets: Targets | None = None) -> Outputs:
        """Raw predictions for images in 0..1; `targets` only feed denoising queries.

        Raises:
            ShapeError: a side is not a multiple of the coarsest stride.
        """
        height, width = images.shape[2:]
        coarsest = getattr(self.backbone, "coarsest", max(self.backbone.strides))
        if height % coarsest or width % coarsest:
            raise ShapeError(
                f"images: expected sides that are multiples of {coarsest}, got {height}x{width} (height x width); "
                f"letterbox them to {_up(height, coarsest)}x{_up(width, coarsest)}"
            )
        outputs: Outputs = self.head(self.neck(self.backbone(images)), (height, width), targets)
        return outputs

    def without_auxiliary(self) -> "Detector":
        """This detector, in place, without the branches that only training supervises."""
        self.head = self.head.without_auxiliary()
        return self


@component
class DetectorConfig:
    """The three parts of a detector, each chosen by its `kind`."""

    kind: Literal["detector"] = "detector"
    backbone: BackboneConfig = CSPConfig()
    neck: NeckConfig = PANConfig()
    head: HeadConfig = AnchorFreeConfig()

    def build(self) -> Detector:
        """A detector with fresh weights."""
        return Detector(self)


def _up(side: int, multiple: int) -> int:
    return -(-side // multiple) * multiple
