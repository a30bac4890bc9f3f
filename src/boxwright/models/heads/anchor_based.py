# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The anchor-based dense head of YOLOv5: per cell and anchor a box, objectness, class logits and mask coefficients.

Source: spec/architectures 3.3 to 3.5; anchors: YOLO9000, Redmon and Farhadi 2016, arXiv:1612.08242; class prior:
RetinaNet, Lin et al. 2017, arXiv:1708.02002.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from boxwright.config import component
from boxwright.errors import ConfigError
from boxwright.models.blocks import Proto
from boxwright.models.heads.branches import PRIOR_SIDE, MaskConfig, exact
from boxwright.models.network import ClassLayout
from boxwright.ops.decode import Anchor
from boxwright.ops.kept_grid import grid_like, image_grid
from boxwright.structures import Grid, Outputs, Predictions, Targets
from boxwright.vocabulary import AttributeSpec

LevelAnchors = tuple[tuple[float, float], ...]  # px, (width, height) of each
Anchors = tuple[LevelAnchors, ...]  # one entry per level, fine to coarse

BOX, CLASSES = 4, 5  # columns of a row: raw x, y, w, h; objectness; classes; mask coefficients
PRIOR_OBJECTS = 8.0  # objects expected per image of PRIOR_SIDE px
PRIOR_CLASS = 0.6  # objects of a class, spread over all classes but (nearly) one
P5_ANCHORS: Anchors = (
    ((10.0, 13.0), (16.0, 30.0), (33.0, 23.0)),
    ((30.0, 61.0), (62.0, 45.0), (59.0, 119.0)),
    ((116.0, 90.0), (156.0, 198.0), (373.0, 326.0)),
)


class AnchorBased(nn.Module):
    """One 1x1 convolution per level gives one row of numbers per anchor and cell.

    Every level is a `Predictions` of its own, the coarsest is `Outputs.final`. Rows go by anchor, then row by row: a
    level's `table` unflattened to (B, anchors, rows, columns, n) is the published map.
    `anchors` (levels, anchors, 2) holds the sizes in cells, as published checkpoints carry them; grids are made of the
    config's.
    """

    def __init__(self, config: "AnchorBasedConfig", channels: Sequence[int], strides: Sequence[int]) -> None:
        super().__init__()
        if len(config.anchors) != len(channels):
            raise ConfigError(
                f"model.head.anchors: expected anchors for {len(channels)} levels (strides {tuple(strides)}), "
                f"got {len(config.anchors)}"
            )
        self.priors = _ascending(config.anchors)
        self.strides = tuple(strides)
        self.num_anchors = len(self.priors[0])
        self.num_classes = config.num_classes
        self.num_coefs = 0 if config.masks is None else config.masks.count
        step = torch.tensor(self.strides, dtype=torch.float32)
        self.register_buffer("anchors", torch.tensor(self.priors, dtype=torch.float32) / step[:, None, None])
        self.level_convs = self._convs(channels, CLASSES + self.num_classes + self.num_coefs)
        self.proto = None
        if config.masks is not None:
            masks = config.masks
            self.proto = Proto(channels[0], masks.hidden, masks.count, upsample=masks.upsample)
        self.attribute_convs = nn.ModuleList(self._convs(channels, len(spec.values)) for spec in config.attributes)
        self.attribute_names = tuple(spec.name for spec in config.attributes)
        self.exclusive = config.exclusive
        self.decoder = Anchor()
        self._add_prior(config.class_margin)

    def _convs(self, channels: Sequence[int], columns: int) -> nn.ModuleList:
        return nn.ModuleList(nn.Conv2d(width, self.num_anchors * columns, 1) for width in channels)

    @torch.no_grad()
    def _add_prior(self, margin: float) -> None:
        """Adds to the random biases: a few objects per image, each of one class."""
        classes = slice(CLASSES, CLASSES + self.num_classes)
        for stride, conv in zip(self.strides, self.level_convs, strict=True):
            bias: Tensor = conv.bias  # type: ignore[assignment]
            rows = bias.view(self.num_anchors, -1)
            rows[:, BOX] += math.log(PRIOR_OBJECTS / (PRIOR_SIDE / stride) ** 2)
            rows[:, classes] += math.log(PRIOR_CLASS / (self.num_classes - margin))

    @property
    def class_rows(self) -> Mapping[str, ClassLayout]:
        """The tensors whose first axis counts classes, which stand in the rows of every anchor."""
        names = (f"level_convs.{level}.{kind}" for level in range(len(self.strides)) for kind in ("weight", "bias"))
        return dict.fromkeys(names, ClassLayout(self.num_anchors, CLASSES, self.num_coefs))

    @property
    def constants(self) -> tuple[str, ...]:
        """Names of tensors that the config decides."""
        return ("anchors",)

    def grid(self, image_size: tuple[int, int], device: torch.device | str | None = None) -> Grid:
        """The candidates of all levels for an image of (height, width) pixels."""
        return image_grid(image_size, self.strides, torch.device(device or "cpu"), self.priors)

    def without_auxiliary(self) -> "AnchorBased":
        """This head: all of it serves inference."""
        return self

    def forward(
        self, maps: tuple[Float[Tensor, "B _ _ _"], ...], image_size: tuple[int, int], targets: Targets | None = None
    ) -> Outputs:
        """Raw predictions, one for each level, of an image of (height, width) pixels; `targets` are not read."""
        prototypes = None if self.proto is None else self.proto(maps[0])
        found = [self._level(level, x, prototypes) for level, x in enumerate(maps)]
        return Outputs(found[-1], tuple(found[:-1]))

    def _level(self, level: int, x: Tensor, prototypes: Tensor | None) -> Predictions:
        shape, stride, levels = (x.shape[2], x.shape[3]), self.strides[level], len(self.strides)
        table = self._rows(self.level_convs[level], x)
        stop = CLASSES + self.num_classes
        return Predictions(
            logits=table[..., CLASSES:stop],
            box_raw=table[..., :BOX],
            decoder=self.decoder,
            grid=grid_like(table, (shape,), (stride,), (self.priors[level],), level, levels),
            layer=level,
            exclusive=self.exclusive,
            objectness=table[..., BOX],
            table=table,
            mask_coefs=None if prototypes is None else table[..., stop:],
            prototypes=prototypes,
            attribute_logits={
                name: self._rows(convs[level], x)  # type: ignore[index]
                for name, convs in zip(self.attribute_names, self.attribute_convs, strict=True)
            }
            or None,
        )

    def _rows(self, conv: nn.Module, x: Tensor) -> Tensor:
        """(B, A, n): the rows of every anchor, anchor by anchor; copied once."""
        maps = exact(conv, x)
        rows = maps.view(maps.shape[0], self.num_anchors, -1, *maps.shape[2:])  # sizes stay open in exported graphs
        return rows.permute(0, 1, 3, 4, 2).flatten(1, 3)


@component
class AnchorBasedConfig:
    """How many classes, whether they exclude one another, the anchors of every level, and what the task adds."""

    kind: Literal["anchor_based"] = "anchor_based"
    num_classes: int = 80
    anchors: Anchors = P5_ANCHORS  # px, (width, height), by level; turned round where they shrink with the stride
    exclusive: bool = False  # classes exclude one another: scores by softmax, in the loss as in decoding
    class_margin: float = 0.99999  # of the class prior 0.6 / (classes - margin); 0.99 in spring 2021
    masks: MaskConfig | None = None
    keypoints: None = None  # this head has none
    attributes: tuple[AttributeSpec, ...] = ()

    def __post_init__(self) -> None:
        if self.num_classes < 1:
            raise ConfigError(f"model.head.num_classes: expected at least 1, got {self.num_classes}")
        counts = {len(level) for level in self.anchors}
        if len(counts) != 1 or counts == {0}:
            raise ConfigError(
                "model.head.anchors: expected equally many anchors for every level and at least one, got "
                f"{[len(level) for level in self.anchors]}"
            )
        sides = [side for level in self.anchors for anchor in level for side in anchor]
        if not all(math.isfinite(side) and side > 0 for side in sides):
            raise ConfigError(f"model.head.anchors: expected sides of more than 0 px, got {min(sides):g}")
        if not self.class_margin < 1:
            raise ConfigError(f"model.head.class_margin: expected less than 1, got {self.class_margin}")
        names = [spec.name for spec in self.attributes]
        if len(set(names)) != len(names):
            raise ConfigError(f"model.head.attributes: expected different names, got {', '.join(names)}")

    def build(self, channels: Sequence[int], strides: Sequence[int]) -> AnchorBased:
        """The module with fresh weights for maps with these channels and strides.

        Raises:
            ConfigError: there are anchors for another number of levels.
        """
        return AnchorBased(self, channels, strides)


def _ascending(anchors: Anchors) -> Anchors:
    """The levels in the order in which anchors grow with the stride, by the mean area of the first and the last."""
    area = [sum(width * height for width, height in level) / len(level) for level in anchors]
    return anchors[::-1] if area[0] > area[-1] else anchors
