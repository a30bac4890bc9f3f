# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""What assigners share that look at the cells around each object's centre: those cells, and one owner per candidate.

Every object has the same number of cells, known on the host, so nothing waits for the device and no tensor of
(images, objects, anchors) exists.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from boxwright.errors import ShapeError
from boxwright.kernels.softplus import class_chunks
from boxwright.ops.objects import check_labels, with_objects
from boxwright.structures import Grid, Predictions, Targets, at_least_float32


def lay_out_objects(assigner: object, targets: Targets, grid: Grid | None = None) -> Targets:
    """The targets with their objects counted on the host; unchanged where that was done.

    Raises:
        ShapeError: a valid slot has a negative label or a box that is not finite.
    """
    return with_objects(targets)


class Objects(NamedTuple):
    """The N objects of a batch in the order image, slot."""

    image: Int64[Tensor, " N"]
    slot: Int64[Tensor, " N"]
    label: Int64[Tensor, " N"]
    box: Float[Tensor, "N 4"]  # px xyxy
    sized: Bool[Tensor, " N"]  # has an area

    @classmethod
    def of(cls, name: str, preds: Predictions, targets: Targets) -> "Objects":
        """The objects of a batch; targets without prepared `objects` cost one host sync.

        Raises:
            ShapeError: oriented boxes, or a label that the predictions do not have.
        """
        if targets.oriented:
            raise ShapeError(f"{name}: expected axis-aligned boxes (B, M, 4), got {tuple(targets.boxes.shape)}")
        objects = with_objects(targets).objects
        assert objects is not None
        check_labels(objects, preds.logits.shape[-1])
        dtype = at_least_float32(preds.box_raw[:0]).dtype
        box = targets.boxes[objects.image, objects.slot].to(dtype)
        x1, y1, x2, y2 = box.unbind(dim=-1)
        label = targets.labels[objects.image, objects.slot]
        return cls(objects.image, objects.slot, label, box, (x2 > x1) & (y2 > y1))

    @property
    def centre(self) -> Float[Tensor, "N 2"]:
        """Px (x, y)."""
        return (self.box[:, :2] + self.box[:, 2:]) / 2


def decoded_boxes(preds: Predictions) -> Float[Tensor, "B A 4"]:
    """Every candidate's box, px xyxy, decoded some images at once."""
    return torch.cat([preds.boxes_of(images) for images in class_chunks(preds.box_raw)])


def cells_of_level(
    grid: Grid, level: int, first: Int64[Tensor, "N 2"], count: tuple[int, int]
) -> tuple[Int64[Tensor, "N K"], Bool[Tensor, "N K"]]:
    """Candidates of a block of count = (columns, rows) cells from `first` (column, row), and whether their cell exists.

    In the order of candidates; what does not exist points at the level's first one.
    """
    rows, columns = grid.shapes[level]
    start, priors = sum(grid.level_sizes[:level]), grid.level_sizes[level] // (rows * columns)
    column = first[:, :1] + torch.arange(count[0], device=first.device)
    row = first[:, 1:] + torch.arange(count[1], device=first.device)
    inside = ((row >= 0) & (row < rows))[:, :, None] & ((column >= 0) & (column < columns))[:, None]
    cell = torch.where(inside, row[:, :, None] * columns + column[:, None], 0).flatten(1)
    inside, prior = inside.flatten(1), torch.arange(priors, device=first.device)
    if grid.prior_first:
        candidate = (prior[:, None] * (rows * columns) + cell[:, None]).flatten(1)
        return start + candidate, inside[:, None].expand(-1, priors, -1).flatten(1)
    return start + (cell[:, :, None] * priors + prior).flatten(1), inside[:, :, None].expand(-1, -1, priors).flatten(1)


def within(points: Float[Tensor, "N K 2"], boxes: Float[Tensor, "N 4"], border: float) -> Bool[Tensor, "N K"]:
    """Whether points lie inside their object's box, farther than `border` px from every side."""
    low, high = boxes[:, None, :2], boxes[:, None, 2:]
    return torch.minimum(points - low, high - points).amin(dim=-1) > border


def one_owner(
    candidate: Int64[Tensor, " K"], merit: Float[Tensor, " K"], alive: Bool[Tensor, " K"], total: int
) -> Int64[Tensor, " total"]:
    """For each of `total` candidates the row that wins it: most merit, the first of equal ones; K where nobody asks."""
    count = len(candidate)
    place = torch.where(alive, candidate, total)
    best = merit.new_full((total + 1,), -torch.inf).scatter_reduce_(0, place, merit, "amax")
    winning = alive & (merit == best.index_select(0, place))
    place = torch.where(winning, candidate, total)
    number = torch.arange(count, device=candidate.device)
    return torch.full((total + 1,), count, device=candidate.device).scatter_reduce_(0, place, number, "amin")[:-1]


def won_pairs(
    image: Int64[Tensor, " K"], anchor: Int64[Tensor, " K"], alive: Bool[Tensor, " K"], merit: Float[Tensor, " K"],
    shape: tuple[int, int],
) -> tuple[Int64[Tensor, " P"], Bool[Tensor, " P"]]:  # fmt: skip
    """Rows of the pairs, and which of them are positives, after each candidate went to the row with most merit.

    As many as there are rows, or as there are candidates (shape = images, candidates of each) where that is less.
    """
    total = shape[0] * shape[1]
    candidate = image * shape[1] + anchor
    owner = one_owner(candidate, merit, alive, total)
    count = len(candidate)
    if count > total:
        return owner.clamp(max=count - 1), owner < count
    number = torch.arange(count, device=image.device)
    return number, alive & (owner.index_select(0, candidate) == number)
