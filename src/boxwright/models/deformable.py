# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Multi-scale deformable attention: a query reads a few points around its box from every level, by interpolation.

Source: Deformable DETR, Zhu et al. 2020, arXiv:2010.04159, section 4.1 and appendix A.2 (boxes as references).
"""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from jaxtyping import Float
from torch import Tensor, nn

REACH = 0.5  # the outermost first point lies this share of the box's sides from its centre


def full_precision(like: Tensor) -> AbstractContextManager[object]:
    """Linear layers inside run in their own precision (float32) under autocast; inputs have to be cast to it.

    A bfloat16 share of an image has 8 bits: 2 px of 640.
    """
    kind = like.device.type
    active = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return torch.autocast(kind, enabled=False) if active else nullcontext()


def sample_levels(
    values: Float[Tensor, "B S heads c"],
    shapes: Sequence[tuple[int, int]],
    locations: Float[Tensor, "B Q heads L P 2"],
    weights: Float[Tensor, "B Q heads L P"],
) -> Float[Tensor, "B Q heads*c"]:
    """Weighted sum of values interpolated at P locations (x, y in shares of the image) of each of L levels.

    Values go level by level, row by row. Outside of the image they are zero.
    """
    heads = values.shape[2]
    # Queries last: the gradient of the sum over points is then written in long rows.
    places = locations.permute(0, 2, 3, 4, 1, 5).mul(2).sub(1).flatten(0, 1)  # B*heads, L, P, Q, 2; -1 to 1
    shares = weights.permute(0, 2, 3, 4, 1).flatten(0, 1)[:, :, None]  # B*heads, L, 1, P, Q
    found: list[Tensor] = []
    levels = torch.split(values, [height * columns for height, columns in shapes], dim=1)
    for level, (shape, value) in enumerate(zip(shapes, levels, strict=True)):
        plane = torch.unflatten(value.permute(0, 2, 3, 1).flatten(0, 1), 2, shape)
        read = nn.functional.grid_sample(
            plane, places[:, level], mode="bilinear", padding_mode="zeros", align_corners=False
        )
        found.append((read * shares[:, level]).sum(2))
    joined = torch.unflatten(torch.stack(found).sum(0), 0, (-1, heads))  # B, heads, c, Q
    return joined.flatten(1, 2).transpose(1, 2)


class DeformableAttention(nn.Module):
    """Reads the memory where the queries' boxes are; offsets from the centre count in halves of the box's sides.

    Channels of `offsets` go head, level, point, (x, y); those of `weights` head, level, point.
    """

    def __init__(self, width: int, heads: int, levels: int, points: int) -> None:
        super().__init__()
        self.heads, self.levels, self.points = heads, levels, points
        self.offsets = nn.Linear(width, heads * levels * points * 2)
        self.weights = nn.Linear(width, heads * levels * points)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """First, every head looks in a direction of its own, point p at p steps, with equal weights."""
        angle = torch.arange(self.heads) * (2 * math.pi / self.heads)
        direction = torch.stack((angle.cos(), angle.sin()), dim=-1)
        direction = direction / direction.abs().amax(dim=-1, keepdim=True)
        steps = torch.arange(1, self.points + 1).view(1, 1, -1, 1)
        bias = (direction[:, None, None] * steps).expand(-1, self.levels, -1, -1)
        self.offsets.bias.copy_(bias.flatten())
        for still in (self.offsets.weight, self.weights.weight, self.weights.bias):
            nn.init.zeros_(still)
        for linear in (self.value, self.output):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(
        self,
        queries: Float[Tensor, "B Q d"],
        boxes: Float[Tensor, "B Q 4"],
        memory: Float[Tensor, "B S d"],
        shapes: Sequence[tuple[int, int]],
    ) -> Float[Tensor, "B Q d"]:
        """What every query reads; boxes are (cx, cy, w, h) in shares of the image, `shapes` (rows, columns) by level.

        Where to read and how much of it is computed in the precision of the boxes.
        """
        values = self.value(memory).unflatten(-1, (self.heads, -1))
        with full_precision(boxes):
            own = queries.to(boxes.dtype)
            places = (self.heads, self.levels, self.points)
            offsets = self.offsets(own).unflatten(-1, (*places, 2))
            weights = self.weights(own).unflatten(-1, (self.heads, -1)).softmax(-1).unflatten(-1, places[1:])
            centre, sides = boxes[:, :, None, None, None].chunk(2, dim=-1)
            locations = centre + offsets * (REACH / self.points) * sides
            read = sample_levels(values.to(boxes.dtype), shapes, locations, weights)
        return self.output(read)  # type: ignore[no-any-return]
