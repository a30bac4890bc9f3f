# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Made-up raw outputs whose boxes, scores and extras are known."""

import torch

from boxwright.config import component
from boxwright.ops.grid import grid_for_image
from boxwright.structures import Outputs, Predictions


@component
class AsIs:
    """A decoder for tests: the raw values are the boxes; an angle is put behind them."""

    def __call__(self, raw, points, strides, extra=None):
        return raw if extra is None else torch.cat((raw, extra[..., None]), dim=-1)


def predictions(boxes, scores, *, size=(64, 64), role="main", queries=False, **parts):
    """Predictions of one image with these boxes (n, 4 or 5) and scores (n, C) at its first cells; no others count."""
    boxes = torch.as_tensor(boxes, dtype=torch.float32)
    scores = torch.as_tensor(scores, dtype=torch.float64)
    grid = None if queries else grid_for_image(size, (8, 16))
    count = len(boxes) if queries else grid.points.shape[0]
    raw, logits = torch.zeros(1, count, 4), torch.full((1, count, scores.shape[1]), -20.0)
    raw[0, : len(boxes)] = boxes[:, :4]
    logits[0, : len(boxes)] = torch.logit(scores).float()
    extra = {}
    for name, part in parts.items():
        part = torch.as_tensor(part, dtype=torch.float32)
        if name == "prototypes":
            extra[name] = part[None]
            continue
        extra[name] = torch.zeros(1, count, *part.shape[1:])
        extra[name][0, : len(boxes)] = part
    if boxes.shape[1] == 5:
        extra["angle"] = torch.zeros(1, count)
        extra["angle"][0, : len(boxes)] = boxes[:, 4]
    return Predictions(
        logits=logits,
        box_raw=raw,
        decoder=AsIs(),
        grid=grid,
        role=role,
        input_size=size if queries else None,
        **extra,
    )


def outputs(*arguments, **parts):
    """The same as a model returns them."""
    return Outputs(predictions(*arguments, **parts))
