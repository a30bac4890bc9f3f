# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""A bench for terms: many images of one cell each, all matched to one object, so that one call gives a whole curve."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from boxwright.losses import Predictions, Targets
from boxwright.ops.boxes import xyxy_to_cxcywh
from boxwright.ops.decode import Distance, Normalized, Oriented
from boxwright.ops.distances import encode_rotated
from boxwright.ops.grid import make_grid
from boxwright.structures import Assignment

SIDE = 64  # px; the one cell is the whole image, its centre is (32, 32)
TRUTH = (12.0, 20.0, 52.0, 44.0)  # px; 40 x 24 around the cell's centre


def bench(
    count: int,
    *,
    boxes: Tensor | None = None,
    box_raw: Tensor | None = None,
    num_bins: int = 1,
    logits: Tensor | None = None,
    truth: tuple[float, ...] = TRUTH,
    weight: float | Tensor = 1.0,
    queries: bool = False,
    target_fields: dict[str, Any] | None = None,
    **fields: Any,
) -> tuple[Predictions, Targets, Assignment]:
    """Predictions, targets and pairs of `count` images; boxes are px xyxy, or 5 numbers of oriented boxes.

    With `queries` there is no cell, and predictions are those of one query per image.
    """
    grid = make_grid([(1, 1)], [SIDE])
    true = torch.tensor(truth, dtype=torch.float64).expand(count, 1, len(truth)).clone()
    oriented = len(truth) == 5
    if box_raw is None:
        boxes = true[:, 0] if boxes is None else boxes.double().expand(count, -1)
        centre = grid.points.double().expand(count, 2)
        if oriented:
            box_raw = encode_rotated(centre, boxes) / SIDE
            fields["angle"] = boxes[:, 4:]
        else:
            box_raw = torch.cat((centre - boxes[:, :2], boxes[:, 2:] - centre), dim=1) / SIDE
    logits = torch.zeros(count, 1, dtype=torch.float64) if logits is None else logits.double()
    decoder = Oriented(num_bins=num_bins) if oriented else Distance(num_bins=num_bins)
    preds = Predictions(logits[:, None], box_raw[:, None], decoder, grid, **fields)
    label = torch.zeros(count, 1, dtype=torch.int64)
    targets = Targets(label, true, torch.ones_like(label, dtype=torch.bool), **(target_fields or {}))
    if queries:
        shares = xyxy_to_cxcywh(true[:, 0] if boxes is None else boxes.double().expand(count, -1)) / SIDE
        preds = Predictions(
            logits[:, None], shares[:, None], Normalized(), input_size=(SIDE, SIDE), role="decoder", **fields
        )
    number, first = torch.arange(count), torch.zeros(count, dtype=torch.int64)
    weights = torch.as_tensor(weight, dtype=torch.float64).expand(count).clone()
    one = torch.ones((), dtype=torch.float64)
    return preds, targets, Assignment(number, first, first, torch.ones(count, dtype=torch.bool), weights, one)


def curve(term: Any, count: int, **options: Any) -> np.ndarray:
    """Contribution of every image."""
    return np.asarray(term(*bench(count, **options)).detach().reshape(count, -1).sum(dim=1))


def line(start: float, end: float, count: int = 241) -> Tensor:
    """Evenly spaced numbers."""
    return torch.linspace(start, end, count, dtype=torch.float64)


def shifted(by: Tensor) -> Tensor:
    """The true box, moved to the right by each number of px."""
    return torch.tensor(TRUTH, dtype=torch.float64) + by[:, None] * torch.tensor([1.0, 0.0, 1.0, 0.0])


def scaled(by: Tensor, axes: tuple[float, float] = (1.0, 1.0)) -> Tensor:
    """The true box, its sides times each number where the axis is 1."""
    x1, y1, x2, y2 = TRUTH
    centre = torch.tensor([(x1 + x2) / 2, (y1 + y2) / 2] * 2, dtype=torch.float64)
    factor = by[:, None] * torch.tensor([*axes, *axes]) + 1 - torch.tensor([*axes, *axes])
    return centre + (torch.tensor(TRUTH, dtype=torch.float64) - centre) * factor
