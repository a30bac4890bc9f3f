# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Suppression of oriented boxes by probIoU, in the fast form: whatever a better box covers goes, kept or not."""

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from boxwright.ops.probiou import FARTHEST, GaussianPlanes, probiou_of_planes

BLOCK = 512  # boxes compared with all better ones at once
SLACK = 1.01  # the pre-filter keeps this much more than it must: the epsilons of the overlap are not in its bound


def rotated_nms(
    boxes: Float[Tensor, "N 5"],
    scores: Float[Tensor, " N"],
    labels: Int64[Tensor, " N"] | None,
    iou: float,
    max_kept: int | None = None,
) -> Int64[Tensor, " kept"]:
    """Indices of boxes (px cx, cy, w, h and radians) that no better box of their label overlaps by `iou` or more.

    Best first; equal scores keep the order of the input, and the earlier counts as better. `None` as labels puts all
    boxes in one class. Only boxes near each other are compared: beyond some distance of centres no overlap can
    reach the threshold.

    Source: spec/architectures 6.4, fast form.
    """
    order = torch.argsort(scores, descending=True, stable=True)
    limit = len(order) if max_kept is None else max(max_kept, 0)
    ranked = boxes.detach()[order].cpu()
    of = None if labels is None else labels[order].cpu()
    planes = GaussianPlanes.of(ranked)
    # Centres d apart: the distance of the Gaussians is at least d^2 / (4 (largest variances, summed)).
    farthest = FARTHEST if iou <= 0 else min(-math.log(max(1 - (1 - iou) ** 2, 1e-12)), FARTHEST)
    reach = (4 * SLACK * farthest) * planes.along
    kept: list[Tensor] = []
    count = 0
    for start in range(0, len(ranked), BLOCK):
        if count >= limit:
            break
        block = torch.arange(start, min(start + BLOCK, len(ranked)))
        alive = block[~_covered(planes, reach, of, block, iou)]
        kept.append(alive)
        count += len(alive)
    chosen = torch.cat(kept)[:limit] if kept else torch.empty(0, dtype=torch.int64)
    return order[chosen.to(order.device)]


def _covered(planes: GaussianPlanes, reach: Tensor, labels: Tensor | None, block: Tensor, iou: float) -> Tensor:
    """Which boxes of the block a better one overlaps by the threshold or more."""
    until = int(block[-1]) + 1
    dx, dy = (plane[block, None] - plane[None, :until] for plane in (planes.cx, planes.cy))
    near = dx.square_().add_(dy.square_()) <= (reach[block, None] + reach[None, :until])
    near &= torch.arange(until)[None] < block[:, None]
    if labels is not None:
        near &= labels[block, None] == labels[None, :until]
    row, better = near.nonzero(as_tuple=True)
    overlap = probiou_of_planes(planes.take(block[row]), planes.take(better))
    covered = torch.zeros(len(block), dtype=torch.bool)
    covered[row[overlap >= iou]] = True
    return covered
