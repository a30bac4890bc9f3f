# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""What the trainer, the predictor and the importer may ask of any network: its layers, its grid, folding, freezing."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from boxwright.errors import ConfigError
from boxwright.models.blocks import fold_
from boxwright.structures import Grid, ImageOutputs, Outputs


class ClassLayout(NamedTuple):
    """Where classes stand on the first axis of a tensor: in each of `blocks` parts, after and before other rows."""

    blocks: int = 1
    before: int = 0
    after: int = 0

    def size(self, classes: int) -> int:
        """Length of the axis for this many classes."""
        return self.blocks * (self.before + classes + self.after)

    def rows(self, chosen: Sequence[int], classes: int) -> list[int]:
        """The rows of some of the classes, block by block, with all the other rows around them.

        >>> ClassLayout(blocks=2, before=1).rows([2, 0], classes=3)
        [0, 3, 1, 4, 7, 5]
        """
        one = [*range(self.before), *(self.before + c for c in chosen)]
        one += range(self.before + classes, self.before + classes + self.after)
        step = self.size(classes) // self.blocks
        return [block * step + row for block in range(self.blocks) for row in one]


class Network(nn.Module, ABC):
    """Base of `Detector` and `Classifier`. `forward(images, targets=None)` maps images in 0..1 to raw outputs.

    Training and inference run the same forward pass; `targets` only feed queries that a head makes of them. What
    inference does not need (`Outputs.auxiliary`) is left out by a folded copy.
    """

    strides: tuple[int, ...]  # px per cell of each level, fine to coarse; (1,) where there are no cells
    num_classes: int

    def __init__(self) -> None:
        super().__init__()
        self._still: tuple[nn.Module, ...] = ()  # frozen layers whose batch statistics stay fixed

    @property
    @abstractmethod
    def class_rows(self) -> Mapping[str, ClassLayout]:
        """The tensors whose first axis counts classes, and where on it the classes stand, for `load_weights`."""
        ...

    @property
    def constants(self) -> tuple[str, ...]:
        """Names of tensors that the config decides: `load_weights` never takes them from a file."""
        return ()

    @property
    @abstractmethod
    def layers(self) -> tuple[nn.Module, ...]:
        """The parts in the order of the published layer table; the head is the last."""
        ...

    @abstractmethod
    def grid(self, image_size: tuple[int, int], device: torch.device | str | None = None) -> Grid | None:
        """The candidates of an image of (height, width) pixels, for `Criterion.prepare`; None where there are no cells.

        It must describe the same candidates, in the same order, as the predictions (all levels together).
        """
        ...

    @abstractmethod
    def forward(self, images: Tensor, targets: Any = None) -> Outputs | ImageOutputs:
        """Raw outputs for images in 0..1."""
        ...

    def without_auxiliary(self) -> "Network":
        """This network, in place, without the parts that only training supervises."""
        return self

    def fold(self, *, auxiliary: bool = True) -> Any:
        """A copy for inference with every batch norm written into its convolution: eval mode, no gradients.

        `auxiliary=False` also leaves out the branches that only training supervises.
        """
        folded = copy.deepcopy(self).eval().requires_grad_(False)
        if not auxiliary:
            folded = folded.without_auxiliary()
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

    def train(self, mode: bool = True) -> "Network":
        """Switches to training or evaluation; layers frozen with `bn_eval` stay in evaluation."""
        super().train(mode)
        for part in self._still:
            part.eval()
        return self
