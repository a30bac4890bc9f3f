# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""A classifier is a backbone and a pooled linear layer."""

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from boxwright.config import component
from boxwright.errors import ConfigError
from boxwright.models.backbones import BackboneConfig
from boxwright.models.backbones.csp import CSPConfig
from boxwright.models.blocks import Conv
from boxwright.models.network import ClassLayout, Network
from boxwright.structures import Grid, ImageOutputs, ImageTargets


class ImageHead(nn.Module):
    """A wide convolution, the mean over all cells, dropout, and one linear layer."""

    def __init__(self, inputs: int, hidden: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.conv = Conv(inputs, hidden)
        self.drop = nn.Dropout(dropout)
        self.linear = nn.Linear(hidden, classes)

    def forward(self, x: Float[Tensor, "B c h w"]) -> Float[Tensor, "B C"]:
        """Raw class scores."""
        return self.linear(self.drop(self.conv(x).mean((2, 3))))  # type: ignore[no-any-return]


class Classifier(Network):
    """Images in 0..1 to raw class scores."""

    strides = (1,)

    def __init__(self, config: "ClassifierConfig") -> None:
        super().__init__()
        self.config = config
        self.backbone = config.backbone.build()
        self.head = ImageHead(self.backbone.channels[-1], config.hidden, config.num_classes, config.dropout)

    @property
    def num_classes(self) -> int:  # type: ignore[override]
        """Number of classes of the logits."""
        return self.config.num_classes

    @property
    def class_rows(self) -> Mapping[str, ClassLayout]:
        """The tensors whose first axis counts classes, and where on it the classes stand, for `load_weights`."""
        return dict.fromkeys(("head.linear.weight", "head.linear.bias"), ClassLayout())

    @property
    def layers(self) -> tuple[nn.Module, ...]:
        """The parts in the order of the published layer table; the head is the last."""
        return (*self.backbone.layers, self.head)

    def grid(self, image_size: tuple[int, int], device: torch.device | str | None = None) -> Grid | None:
        """None: there are no cells."""
        return None

    def forward(self, images: Float[Tensor, "B 3 H W"], targets: ImageTargets | None = None) -> ImageOutputs:
        """Raw class scores for images in 0..1; `targets` are not read."""
        return ImageOutputs(self.head(self.backbone(images)[-1]))


@component
class ClassifierConfig:
    """A backbone, and how wide the layer before the classes is.

    Source: spec/architectures 2 and 4.2.
    """

    kind: Literal["classifier"] = "classifier"
    backbone: BackboneConfig = CSPConfig()
    num_classes: int = 1000
    hidden: int = 1280
    dropout: float = 0.0
    exclusive: Literal[True] = True  # an image has exactly one class

    def __post_init__(self) -> None:
        if self.num_classes < 1:
            raise ConfigError(f"model.num_classes: expected at least 1, got {self.num_classes}")

    def build(self) -> Classifier:
        """A classifier with fresh weights."""
        return Classifier(self)
