# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Non-maximum suppression in plain torch and numpy: exact greedy result, cost near the number of boxes that are kept.

Boxes are visited in blocks, best scores first. A block is first cleared of what the boxes kept so far suppress; only
its survivors are compared with each other. The walk ends when enough boxes are kept, so the tail of 30 000 weak
candidates is never looked at, and nothing of size N x N ever exists.
"""

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

BLOCK = 128  # candidates compared with each other at once: small, so that what the kept boxes suppress is cleared early


def nms(
    boxes: Float[Tensor, "N 4"], scores: Float[Tensor, " N"], iou: float, max_kept: int | None = None
) -> Int64[Tensor, " K"]:
    """Indices of the boxes that greedy suppression keeps, best first, at most `max_kept`.

    A box is removed when its overlap with a better kept box is above `iou` (equal is kept). Equal scores are taken in
    index order. Boxes without area suppress nothing and are kept. Waits for the device: the walk runs on the host.

    >>> boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30]])
    >>> nms(boxes, torch.tensor([0.8, 0.9, 0.3]), iou=0.5).tolist()
    [1, 2]
    """
    return class_aware_nms(boxes, scores, None, iou, max_kept)


def class_aware_nms(
    boxes: Float[Tensor, "N 4"],
    scores: Float[Tensor, " N"],
    labels: Int64[Tensor, " N"] | None,
    iou: float,
    max_kept: int | None = None,
) -> Int64[Tensor, " K"]:
    """As `nms`, but a box suppresses only boxes of its own label; `None` puts all boxes in one class.

    Labels are compared, not added to the coordinates, so large images and many classes cost no precision.
    """
    device = boxes.device
    order = torch.argsort(scores, descending=True, stable=True)
    limit = len(order) if max_kept is None else max_kept
    if len(order) <= 1 or limit <= 0:
        return order[: max(limit, 0)]
    sorted_boxes = boxes.detach()[order].cpu()
    sorted_labels = None if labels is None else labels[order].cpu()
    kept = _greedy(sorted_boxes, sorted_labels, iou, limit)
    return order[kept.to(device)]


def _greedy(boxes: Tensor, labels: Tensor | None, iou: float, limit: int) -> Tensor:
    """Positions kept among boxes that are already sorted best first."""
    sides = boxes.t().contiguous()  # (4, N): one contiguous row per coordinate
    areas = (sides[2] - sides[0]) * (sides[3] - sides[1])
    kept = torch.empty(0, dtype=torch.int64)
    for start in range(0, boxes.shape[0], BLOCK):
        block = torch.arange(start, min(start + BLOCK, boxes.shape[0]))
        if len(kept):
            removed = _suppresses(sides, areas, labels, kept, block, iou).any(dim=0)
            block = block[~removed]
        alive = _walk(_suppresses(sides, areas, labels, block, block, iou).numpy())
        kept = torch.cat((kept, block[torch.from_numpy(alive)]))
        if len(kept) >= limit:
            break
    return kept[:limit]


def _suppresses(sides: Tensor, areas: Tensor, labels: Tensor | None, by: Tensor, of: Tensor, iou: float) -> Tensor:
    """(len(by), len(of)) bool: overlap above the threshold, and the same class."""
    a, b = sides.index_select(1, by).unsqueeze(2), sides.index_select(1, of).unsqueeze(1)
    width = torch.minimum(a[2], b[2]).sub_(torch.maximum(a[0], b[0])).clamp_(min=0)
    height = torch.minimum(a[3], b[3]).sub_(torch.maximum(a[1], b[1])).clamp_(min=0)
    inter = width.mul_(height)
    union = (areas[by].unsqueeze(1) + areas[of]).sub_(inter)
    over = inter.div_(union) > iou  # 0 / 0 is NaN, and NaN is not above anything
    return over if labels is None else over.logical_and_(labels[by].unsqueeze(1) == labels[of])


def _walk(suppresses: np.ndarray) -> np.ndarray:
    """Positions that survive when each surviving row, in order, removes the later columns it is True for."""
    alive = np.ones(len(suppresses), dtype=bool)
    np.logical_and(suppresses, ~np.tri(len(suppresses), dtype=bool), out=suppresses)
    for row in np.flatnonzero(suppresses.any(axis=1)):
        if alive[row]:
            alive &= ~suppresses[row]
    return np.flatnonzero(alive)
