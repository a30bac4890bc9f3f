# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""A detector is a backbone, a neck and a head; its config is data and builds it."""

import copy
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from boxwright.config import component
from boxwright.errors import ConfigError, ShapeError
from boxwright.models.backbones import BackboneConfig
from boxwright.models.blocks import fold_
from boxwright.models.heads import HeadConfig
from boxwright.models.necks import NeckConfig
from boxwright.structures import Outputs


class Detector(nn.Module):
    """Images in 0..1 to raw predictions."""

    def __init__(self, config: "DetectorConfig") -> None:
        super().__init__()
        self.config = config
        self.backbone = config.backbone.build()
        self.neck = config.neck.build(self.backbone.channels, self.backbone.strides)
        self.head = config.head.build(self.neck.channels, self.neck.strides)
        self._still: tuple[nn.Module, ...] = ()  # frozen layers whose batch statistics stay fixed

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels per cell of each level, fine to coarse."""
        return self.head.strides

    @property
    def num_classes(self) -> int:
        """Number of classes of the logits."""
        return self.config.head.num_classes

    @property
    def class_rows(self) -> tuple[str, ...]:
        """Names of the tensors whose first axis counts classes, for `load_weights`."""
        return tuple(f"head.{name}" for name in self.head.class_rows)

    @property
    def layers(self) -> tuple[nn.Module, ...]:
        """The parts in the order of the published layer table; the head is the last."""
        return (*self.backbone.layers, *self.neck.layers, self.head)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Outputs:
        """Raw predictions for images in 0..1.

        Raises:
            ShapeError: a side is not a multiple of the coarsest stride.
        """
        height, width = images.shape[2:]
        coarsest = max(self.backbone.strides)
        if height % coarsest or width % coarsest:
            raise ShapeError(
                f"images: expected sides that are multiples of {coarsest}, got {height}x{width} (height x width); "
                f"letterbox them to {_up(height, coarsest)}x{_up(width, coarsest)}"
            )
        outputs: Outputs = self.head(self.neck(self.backbone(images)), (height, width))
        return outputs

    def fold(self) -> "Detector":
        """A copy for inference with every batch norm written into its convolution: eval mode, no gradients."""
        folded = copy.deepcopy(self).eval().requires_grad_(False)
        fold_(folded)
        return folded

    def freeze(self, layers: int | Sequence[int], *, bn_eval: bool = False) -> tuple[int, ...]:
        """Stops the gradients of the first N layers, or of exactly the listed ones, and returns their indices.

        Everything else is made trainable again, except the head's frozen bins. Batch norms of frozen layers keep
        updating their statistics, as published, unless `bn_eval` holds them still.

        Raises:
            ConfigError: there is no such layer.
        """
        parts = self.layers
        chosen = tuple(range(layers)) if isinstance(layers, int) else tuple(sorted(set(layers)))
        if (isinstance(layers, int) and layers < 0) or any(not 0 <= i < len(parts) for i in chosen):
            raise ConfigError(f"train.freeze: this model has layers 0 to {len(parts) - 1}, got {layers}")
        for index, part in enumerate(parts):
            part.requires_grad_(index not in chosen)
        self._still = tuple(parts[i] for i in chosen) if bn_eval else ()
        self.train(self.training)
        return chosen

    def train(self, mode: bool = True) -> "Detector":
        """Switches to training or evaluation; layers frozen with `bn_eval` stay in evaluation."""
        super().train(mode)
        for part in self._still:
            part.eval()
        return self


@component
class DetectorConfig:
    """The three parts of a detector, each chosen by its `kind`."""

    backbone: BackboneConfig = BackboneConfig()
    neck: NeckConfig = NeckConfig()
    head: HeadConfig = HeadConfig()

    def build(self) -> Detector:
        """A detector with fresh weights."""
        return Detector(self)


def _up(side: int, multiple: int) -> int:
    return -(-side // multiple) * multiple
