# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Which grid cells lie inside which object, from labels, grid and image size alone (architecture idea 9)."""

import numpy as np
import torch
from torch import Tensor

from boxwright.errors import ShapeError
from boxwright.structures import Candidates, Grid, Targets

BORDER = 1e-9  # px; a centre counts as inside when it is farther than this from every side (spec/losses B.6)
RUN_CELLS = 4  # cells in a run at most: longer runs share more work among their pairs, shorter ones waste less


def lay_out_candidates(targets: Targets, grid: Grid) -> Candidates:
    """Every (object, cell) pair of a batch as runs of neighbouring cells, with host-known counts.

    Slots that are not valid, and boxes without area, hold no cell. Works on the host: targets elsewhere cost one sync.

    Raises:
        ShapeError: a valid slot has a negative label or a box that is not finite.
    """
    boxes, labels, valid = _on_host(targets)
    _check(boxes, labels, valid)
    batch, slots = labels.shape
    image, slot = np.nonzero(valid)
    box = boxes[image, slot]
    rectangles = [_rectangle(box, shape, stride) for shape, stride in zip(grid.shapes, grid.level_strides, strict=True)]
    # (objects, levels): by object first, then level, as the order of pairs wants it.
    column, columns, row, rows = (np.stack(part, axis=1) for part in zip(*rectangles, strict=True))
    inside, runs = (columns * rows).sum(axis=1), (-(-columns // RUN_CELLS) * rows).sum(axis=1)
    first, length = _runs(image, column, columns, row, rows, grid)
    kept = inside > 0
    image, inside, runs = image[kept], inside[kept], runs[kept]
    return Candidates(
        objects=_tensor(image * slots + slot[kept]),
        object_cells=_tensor(inside),
        object_runs=_tensor(runs),
        run_first=_tensor(first),
        run_length=_tensor(length),
        cells=tuple(tuple(inside[image == index].tolist()) for index in range(batch)),
        runs_of=tuple(tuple(runs[image == index].tolist()) for index in range(batch)),
        slots=slots,
        labels_below=int(labels[valid].max(initial=-1)) + 1,
        shapes=grid.shapes,
        level_strides=grid.level_strides,
    )


def check_candidates(candidates: Candidates, targets: Targets, grid: Grid, classes: int) -> None:
    """Raises when a layout was made for other targets, another grid, or labels that the predictions do not have.

    Raises:
        ShapeError: saying which.
    """
    if (candidates.shapes, candidates.level_strides) != (grid.shapes, grid.level_strides):
        raise ShapeError(
            f"Targets.candidates: expected a layout for levels {grid.shapes} with strides {grid.level_strides} as in "
            f"the predictions, got {candidates.shapes} with {candidates.level_strides}; "
            "call `Criterion.prepare` with the predictions' grid"
        )
    if (len(candidates.cells), candidates.slots) != tuple(targets.labels.shape):
        raise ShapeError(
            f"Targets.candidates: expected a layout for (B, M) = {tuple(targets.labels.shape)}, got "
            f"{(len(candidates.cells), candidates.slots)}; call `Criterion.prepare` again after changing the targets"
        )
    if candidates.labels_below > classes:
        raise ShapeError(
            f"Targets.labels: expected class indices below {classes}, the number of classes the predictions have, "
            f"got {candidates.labels_below - 1}"
        )


def _on_host(targets: Targets) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    # One copy, so that targets on a device cost one sync and not three.
    parts = (targets.boxes, targets.labels[..., None].to(targets.boxes.dtype), targets.valid[..., None])
    packed = torch.cat([part.to(targets.boxes.dtype) for part in parts], dim=-1).cpu().double().numpy()
    return packed[..., :4], packed[..., 4].astype(np.int64), packed[..., 5] > 0


def _check(boxes: np.ndarray, labels: np.ndarray, valid: np.ndarray) -> None:
    for field, bad, got, expected in (
        ("labels", labels < 0, labels, "class indices of at least 0"),
        ("boxes", ~np.isfinite(boxes).all(axis=-1), boxes, "finite pixels"),
    ):
        if (bad & valid).any():
            image, slot = np.argwhere(bad & valid)[0].tolist()
            raise ShapeError(
                f"Targets.{field}: expected {expected}, got {got[image, slot]} at image {image}, slot {slot}"
            )


def _rectangle(box: np.ndarray, shape: tuple[int, int], stride: int) -> tuple[np.ndarray, ...]:
    """First column, columns, first row and rows of the cells inside each box; no columns and rows if there is none."""
    sides = []
    for low, high, cells in ((box[:, 0], box[:, 2], shape[1]), (box[:, 1], box[:, 3], shape[0])):
        centres = (np.arange(cells) + 0.5) * stride
        first = np.searchsorted(centres, low + BORDER, side="right")
        sides += [first, np.maximum(np.searchsorted(centres, high - BORDER, side="left") - first, 0)]
    column, columns, row, rows = sides
    empty = (columns == 0) | (rows == 0)
    return column, np.where(empty, 0, columns), row, np.where(empty, 0, rows)


def _runs(
    image: np.ndarray, column: np.ndarray, columns: np.ndarray, row: np.ndarray, rows: np.ndarray, grid: Grid
) -> tuple[np.ndarray, np.ndarray]:
    """First cell (image * A + anchor) and length of every run, by object, level and row."""
    height, width = (np.array([shape[axis] for shape in grid.shapes]) for axis in (0, 1))
    level_first = np.cumsum(height * width) - height * width
    cells = int((height * width).sum())
    start = (image[:, None] * cells + level_first + row * width + column).ravel()
    step = np.broadcast_to(width, rows.shape).ravel()
    across = -(-columns // RUN_CELLS)
    rectangle, number = _expand((across * rows).ravel())
    line, part = np.divmod(number, across.ravel()[rectangle])
    skipped = part * RUN_CELLS
    first = start[rectangle] + line * step[rectangle] + skipped
    return first, np.minimum(columns.ravel()[rectangle] - skipped, RUN_CELLS)


def _expand(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For counts (2, 3): owners 0 0 1 1 1 and positions 0 1 0 1 2 within each."""
    owner = np.repeat(np.arange(len(counts)), counts)
    return owner, np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.int64))
