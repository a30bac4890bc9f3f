# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Which grid cells lie inside which object, from labels, grid and image size alone (architecture idea 9)."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from boxwright.errors import ShapeError
from boxwright.losses.layout.strips import Strips, level_cells, rectangle_strips, rotated_strips, runs_of_strips
from boxwright.structures import Candidates, Grid, Targets

RUN_CELLS = 4  # cells in a run at most: longer runs share more work among their pairs, shorter ones waste less


class LayoutRules(NamedTuple):
    """What decides, beside containment, which cells an object may take."""

    min_side: float = 0.0  # px; shorter sides are widened to it around the centre, for the containment test only
    level_range: tuple[float, float] | None = None  # cells; the levels on which sqrt(w h) lies in it, see `_on_level`
    smallest_side: float = 0.0  # px; objects with a shorter side hold no cell
    swapped_sides: bool = False  # measure widths in heights of the image and the reverse (compatibility)
    flat_objects: bool = False  # objects without area may hold cells when widened, or when oriented (compatibility)

    @classmethod
    def of(cls, candidates: Candidates) -> "LayoutRules":
        """The rules a layout was made by."""
        return cls(*(getattr(candidates, name) for name in cls._fields))


def lay_out_candidates(targets: Targets, grid: Grid, rules: LayoutRules | None = None) -> Candidates:
    """Every (object, cell) pair of a batch as runs of neighbouring cells, with host-known counts.

    Slots that are not valid, and boxes without area, hold no cell. A cell on the border is outside an axis-aligned box
    and inside an oriented one. Works on the host: targets elsewhere cost one sync.

    Raises:
        ShapeError: a valid slot has a negative label or a box that is not finite, or the grid has priors.
    """
    if grid.level_priors:
        raise ShapeError(
            "candidates inside boxes: expected a grid with one candidate for each cell, got one with priors; "
            "use the assigner AnchorRatio for anchor-based heads"
        )
    rules = rules or LayoutRules()
    boxes, labels, valid = read_targets(targets)
    batch, slots = labels.shape
    image, slot = np.nonzero(valid)
    box = boxes[image, slot]
    large = _large_enough(box, grid, rules)
    image, slot, box = image[large], slot[large], box[large]
    strips = (rotated_strips if targets.oriented else rectangle_strips)(_widened(box, rules.min_side), grid)
    if rules.level_range is not None:
        strips = strips.only(_on_level(box, strips, grid, rules.level_range).ravel())
    inside, runs, first, length = runs_of_strips(strips, image, grid, RUN_CELLS)
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
        oriented=targets.oriented,
        **rules._asdict(),
    )


def check_candidates(
    candidates: Candidates, targets: Targets, grid: Grid, classes: int, rules: LayoutRules | None = None
) -> None:
    """Raises when a layout was made for other targets, another grid, other rules, or labels the predictions lack.

    Raises:
        ShapeError: saying which.
    """
    rules = rules or LayoutRules()
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
    if candidates.oriented != targets.oriented or LayoutRules.of(candidates) != rules:
        raise ShapeError(
            f"Targets.candidates: expected a layout with {rules}, oriented={targets.oriented}, got one with "
            f"{LayoutRules.of(candidates)}, oriented={candidates.oriented}; prepare targets with the criterion that "
            "reads them, and give all its assigners the same such options"
        )
    if candidates.labels_below > classes:
        raise ShapeError(
            f"Targets.labels: expected class indices below {classes}, the number of classes the predictions have, "
            f"got {candidates.labels_below - 1}"
        )


def read_targets(targets: Targets) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes, labels and validity on the host, checked; targets elsewhere cost one sync.

    Raises:
        ShapeError: a valid slot has a negative label or a box that is not finite.
    """
    # One copy, so that targets on a device cost one sync and not three.
    parts = (targets.boxes, targets.labels[..., None].to(targets.boxes.dtype), targets.valid[..., None])
    packed = torch.cat([part.to(targets.boxes.dtype) for part in parts], dim=-1).cpu().double().numpy()
    boxes, labels, valid = packed[..., :-2], packed[..., -2].astype(np.int64), packed[..., -1] > 0
    _check(boxes, labels, valid)
    return boxes, labels, valid


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


def _sides(box: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if box.shape[1] == 5:
        return box[:, 2], box[:, 3]
    return box[:, 2] - box[:, 0], box[:, 3] - box[:, 1]


def _large_enough(box: np.ndarray, grid: Grid, rules: LayoutRules) -> np.ndarray:
    """Objects with area whose sides reach the smallest allowed."""
    width, height = _sides(box)
    large: np.ndarray = np.full(len(box), rules.flat_objects) | ((width > 0) & (height > 0))
    if rules.swapped_sides:
        rows, columns = grid.image_size
        width, height = width / columns * rows, height / rows * columns
    if rules.smallest_side:
        large &= (width >= rules.smallest_side) & (height >= rules.smallest_side)
    return large


def _widened(box: np.ndarray, min_side: float) -> np.ndarray:
    if not min_side:
        return box
    if box.shape[1] == 5:
        return np.concatenate((box[:, :2], np.maximum(box[:, 2:4], min_side), box[:, 4:]), axis=1)
    centre, sides = (box[:, :2] + box[:, 2:]) / 2, np.maximum(box[:, 2:] - box[:, :2], min_side)
    return np.concatenate((centre - sides / 2, centre + sides / 2), axis=1)


def _on_level(box: np.ndarray, strips: Strips, grid: Grid, level_range: tuple[float, float]) -> np.ndarray:
    """(objects, levels): whether sqrt(w h) is in the range of the level, or no level in range holds a cell.

    The finest level has no lower end and the coarsest no upper one.
    """
    width, height = _sides(box)
    cells = np.sqrt(np.maximum(width * height, 0))[:, None] / np.array(grid.level_strides, dtype=np.float64)
    allowed = (cells >= level_range[0]) & (cells <= level_range[1])
    allowed[:, 0] = cells[:, 0] <= level_range[1]
    allowed[:, -1] = cells[:, -1] >= level_range[0]
    if len(grid.shapes) == 1:
        allowed[:] = True
    held = (level_cells(strips, len(box), grid) * allowed).sum(axis=1) > 0
    result: np.ndarray = allowed | ~held[:, None]
    return result


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.int64))
