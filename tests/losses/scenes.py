# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Small scenes for the tests of losses: predictions on a small grid and labels that partly fit them."""

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from boxwright.losses.assign import TaskAligned
from boxwright.losses.criterion import Criterion, Rule, Weighted
from boxwright.losses.terms import BoxOverlap, DistanceBins, SoftScores
from boxwright.ops.decode import Distance, Oriented
from boxwright.ops.grid import grid_for_image
from boxwright.structures import Predictions, Targets

SIZE, STRIDES, CLASSES, BINS = (64, 96), (8, 16, 32), 3, 6


def make_targets(
    *images: Sequence[tuple[float, float, float, float]],
    labels: Sequence[Sequence[int]] | None = None,
    slots: int | None = None,
    dtype: torch.dtype = torch.float64,
) -> Targets:
    """Targets from boxes (px xyxy) per image; all of class 0 unless labels are given."""
    width = slots if slots is not None else max(map(len, images), default=0)
    boxes = torch.zeros(len(images), width, 4, dtype=dtype)
    label = torch.zeros(len(images), width, dtype=torch.int64)
    valid = torch.zeros(len(images), width, dtype=torch.bool)
    for image, rows in enumerate(images):
        for slot, row in enumerate(rows):
            boxes[image, slot] = torch.tensor(row, dtype=dtype)
            label[image, slot] = 0 if labels is None else labels[image][slot]
            valid[image, slot] = True
    return Targets(label, boxes, valid)


def random_targets(
    generator: torch.Generator, counts: Sequence[int], size: tuple[int, int] = SIZE, dtype: torch.dtype = torch.float64
) -> Targets:
    """Boxes with sides of 5 to 70 % of the image, whole pixels, some over the border, with some slots left unused."""
    height, width = size
    images, labels = [], []
    for count in counts:
        side = torch.rand(count, 2, generator=generator) * 0.65 + 0.05
        centre = torch.rand(count, 2, generator=generator)
        box = torch.cat((centre - side / 2, centre + side / 2), dim=1) * torch.tensor([width, height, width, height])
        images.append([tuple(row) for row in box.round().tolist()])
        labels.append(torch.randint(CLASSES, (count,), generator=generator).tolist())
    return make_targets(*images, labels=labels, slots=max(counts, default=0) + 1, dtype=dtype)


def random_predictions(
    generator: torch.Generator,
    batch: int,
    size: tuple[int, int] = SIZE,
    strides: Sequence[int] = STRIDES,
    *,
    bins: int = BINS,
    dtype: torch.dtype = torch.float64,
) -> Predictions:
    """Noise on every cell; about a third of the boxes overlap something. Leaves that carry gradients."""
    grid = grid_for_image(size, strides)
    anchors = len(grid.points)
    logits = torch.randn(batch, anchors, CLASSES, generator=generator, dtype=torch.float64) - 1
    raw = torch.randn(batch, anchors, 4 * bins, generator=generator, dtype=torch.float64) * 1.5
    raw = raw.abs() + 0.3 if bins == 1 else raw
    return Predictions(logits.to(dtype).requires_grad_(), raw.to(dtype).requires_grad_(), Distance(num_bins=bins), grid)


def criterion(assigner: TaskAligned | None = None, *, batch_scale: bool = True) -> Criterion:
    """The YOLOv8 rule."""
    terms = {
        "box": Weighted(term=BoxOverlap(), gain=7.5),
        "cls": Weighted(term=SoftScores(), gain=0.5),
        "dfl": Weighted(term=DistanceBins(), gain=1.5),
    }
    return Criterion(rules={"main": Rule(assigner=assigner or TaskAligned(), terms=terms)}, batch_scale=batch_scale)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gradients(preds: Predictions) -> tuple[Tensor, Tensor]:
    """Gradients of the logits and of the raw boxes."""
    assert preds.logits.grad is not None
    assert preds.box_raw.grad is not None
    return preds.logits.grad, preds.box_raw.grad


def oriented(preds: Predictions, targets: Targets, source: torch.Generator) -> tuple[Predictions, Targets]:
    """The same scene with angles on both sides: boxes keep centre and sides."""
    angle = torch.rand(preds.logits.shape[:2], generator=source, dtype=torch.float64) * 2.5 - 0.7
    theta = torch.rand(targets.labels.shape, generator=source, dtype=torch.float64) * 6 - 3
    corners = targets.boxes
    turned = torch.cat(
        (
            (corners[..., :2] + corners[..., 2:]) / 2,
            corners[..., 2:] - corners[..., :2],
            theta[..., None].to(corners.dtype),
        ),
        dim=-1,
    )
    preds = dataclasses.replace(
        preds,
        decoder=Oriented(num_bins=preds.box_raw.shape[-1] // 4),
        angle=angle.to(preds.logits.dtype).requires_grad_(),
    )
    return preds, Targets(targets.labels, turned * targets.valid[..., None], targets.valid)
