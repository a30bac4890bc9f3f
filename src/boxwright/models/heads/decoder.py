# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The decoder of query models: queries talk to each other, read the image around their boxes, and move the boxes.

Source: RT-DETR, Zhao et al. 2023, arXiv:2304.08069; boxes refined layer by layer: Deformable DETR, Zhu et al. 2020,
arXiv:2010.04159; gradients through two layers: DINO, Zhang et al. 2022, arXiv:2203.03605; spec/architectures 2.2, 6.7.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from boxwright.models.deformable import DeformableAttention, full_precision
from boxwright.models.transformer import MLP, SelfAttention

EDGE = 1e-5  # share of the image; a box's numbers stay this far from 0 and 1, where a logit is infinite


@dataclass(frozen=True, slots=True)
class LayerOutput:
    """What one decoder layer says about every query."""

    layer: int
    logits: Float[Tensor, "B T C"]
    boxes: Float[Tensor, "B T 4"]  # (cx, cy, w, h) in shares of the image
    attributes: Float[Tensor, "B T n"] | None  # raw, the values of all attributes side by side


class DecoderLayer(nn.Module):
    """Attention among queries, deformable attention to the image, two linear layers; a norm after every sum."""

    def __init__(self, width: int, heads: int, levels: int, points: int, hidden: int) -> None:
        super().__init__()
        self.attention = SelfAttention(width, heads)
        self.norm1 = nn.LayerNorm(width)
        self.cross = DeformableAttention(width, heads, levels, points)
        self.norm2 = nn.LayerNorm(width)
        self.expand = nn.Linear(width, hidden)
        self.reduce = nn.Linear(hidden, width)
        self.norm3 = nn.LayerNorm(width)

    def forward(
        self,
        x: Float[Tensor, "B T d"],
        boxes: Float[Tensor, "B T 4"],
        position: Float[Tensor, "B T d"],
        memory: Float[Tensor, "B S d"],
        shapes: Sequence[tuple[int, int]],
        blocked: Bool[Tensor, "T T"] | None,
    ) -> Float[Tensor, "B T d"]:
        """The queries after the layer; `blocked` says which (row) may not read which (column)."""
        x = self.norm1(x + self.attention(x, position, blocked))
        x = self.norm2(x + self.cross(x + position, boxes, memory, shapes))
        return self.norm3(x + self.reduce(self.expand(x).relu()))  # type: ignore[no-any-return]


class QueryDecoder(nn.Module):
    """Layers, and for each of them a class head, a box head and, where there are attributes, one linear head for all.

    `read` are the layers whose class and attribute heads are asked.
    """

    def __init__(
        self,
        *,
        layers: int,
        width: int,
        heads: int,
        levels: int,
        points: int,
        hidden: int,
        num_classes: int,
        attribute_values: int,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(width, heads, levels, points, hidden) for _ in range(layers))
        self.position = MLP((4, 2 * width, width))
        self.classes = nn.ModuleList(nn.Linear(width, num_classes) for _ in range(layers))
        self.boxes = nn.ModuleList(MLP((width, width, width, 4)) for _ in range(layers))
        self.attributes = nn.ModuleList(
            nn.Linear(width, attribute_values) for _ in range(layers if attribute_values else 0)
        )
        self.read = tuple(range(layers))
        for linear in self.position.layers:
            nn.init.xavier_uniform_(linear.get_parameter("weight"))

    def keep_only(self, layer: int) -> None:
        """Drops, in place, what is not needed for the outputs of one layer; names of the rest stay."""
        self.layers = self.layers[: layer + 1]
        self.boxes = self.boxes[: layer + 1]
        for heads in (self.classes, self.attributes):
            for index in range(len(heads)):
                if index != layer:
                    heads[index] = nn.Identity()
        self.read = (layer,)

    def forward(
        self,
        x: Float[Tensor, "B T d"],
        box_logits: Float[Tensor, "B T 4"],
        memory: Float[Tensor, "B S d"],
        shapes: Sequence[tuple[int, int]],
        blocked: Bool[Tensor, "T T"] | None = None,
    ) -> list[LayerOutput]:
        """The outputs of the layers that are read, from the queries' contents and first boxes.

        A layer starts from boxes that are constants to it; the box it gives out carries the gradient of its own move
        and of the move of the layer before.
        """
        boxes = box_logits.detach().sigmoid()
        before = boxes
        found = []
        for index, (layer, box_head) in enumerate(zip(self.layers, self.boxes, strict=True)):
            with full_precision(boxes):
                position = self.position(boxes)
            x = layer(x, boxes, position, memory, shapes, blocked).to(boxes.dtype)
            with full_precision(boxes):
                move = box_head(x)
                moved = (move + logit(boxes)).sigmoid()
                if index in self.read:
                    given = (move + logit(before)).sigmoid() if torch.is_grad_enabled() else moved
                    attributes = self.attributes[index](x) if self.attributes else None
                    found.append(LayerOutput(index, self.classes[index](x), given, attributes))
            before, boxes = moved, moved.detach()
        return found


def logit(share: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """ln(x / (1 - x)) of shares, both parts at least `EDGE`.

    >>> [round(value, 4) for value in logit(torch.tensor([-1.0, 0.5, 1.0])).tolist()]
    [-11.5129, 0.0, 11.5129]
    """
    share = share.clamp(0, 1)
    return (share.clamp(min=EDGE) / (1 - share).clamp(min=EDGE)).log()
