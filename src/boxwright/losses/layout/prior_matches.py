# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Which priors (anchors) each object claims, from labels, priors and map sizes alone.

Source: spec/losses C.1. All numbers are worked out in float64 on the host.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from boxwright.errors import ShapeError
from boxwright.losses.layout.candidates import read_targets
from boxwright.structures import Grid, PriorMatches, Targets


class LevelClaims(NamedTuple):
    """Claims of N priors on one level, by direction, prior and object."""

    prior: np.ndarray  # (N,)
    object: np.ndarray  # (N,)
    column: np.ndarray  # (N,) of the claimed cell
    row: np.ndarray  # (N,)


def level_claims(
    boxes: np.ndarray, priors: np.ndarray, shape: tuple[int, int], ratio: float = 4.0, bias: float = 0.5
) -> LevelClaims:
    """Claims of objects (cx, cy, w, h) on the priors (w, h) of a level of (rows, columns), all in cells.

    As `AnchorRatio.claims` defines them.
    """
    with np.errstate(divide="ignore"):
        share = boxes[None, :, 2:] / priors[:, None]
        worst = np.maximum(share, 1 / share).max(axis=-1)
    prior, fitting = np.nonzero((worst < ratio) & (boxes[:, 2:] > 0).all(axis=-1))
    centre = boxes[fitting, :2]
    direction, match = np.nonzero(_directions(centre, shape, bias))
    offset = np.array([(0, 0), (1, 0), (0, 1), (-1, 0), (0, -1)]) * bias
    cell = np.trunc(centre[match] - offset[direction]).astype(np.int64)
    cell = np.clip(cell, 0, np.array(shape[::-1]) - 1)
    return LevelClaims(prior[match], fitting[match], cell[:, 0], cell[:, 1])


def _directions(centre: np.ndarray, shape: tuple[int, int], bias: float) -> np.ndarray:
    # A fraction of exactly 0 passes both tests of an axis, one of exactly 0.5 neither.
    near_start = (centre % 1 < bias) & (centre > 1)
    left = np.array(shape[::-1]) - centre
    near_end = (left % 1 < bias) & (left > 1)
    own = np.ones(len(centre), dtype=bool)
    return np.stack((own, near_start[:, 0], near_start[:, 1], near_end[:, 0], near_end[:, 1]))


def lay_out_prior_matches(targets: Targets, grid: Grid, ratio: float, bias: float) -> PriorMatches:
    """Every claim of a batch. Slots that are not valid and boxes without area claim nothing.

    Works on the host: targets elsewhere cost one sync.

    Raises:
        ShapeError: the grid has no priors, or a valid slot has a negative label or a box that is not finite.
    """
    if not grid.level_priors:
        raise ShapeError("AnchorRatio: expected a grid with priors (`make_grid(..., priors=...)`), got none")
    boxes, labels, valid = read_targets(targets)
    image, slot = np.nonzero(valid)
    corners = boxes[image, slot]
    centred = np.concatenate(((corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]), axis=1)
    anchors, claimants, first = [], [], 0
    for shape, stride, priors in zip(grid.shapes, grid.level_strides, grid.level_priors, strict=True):
        claims = level_claims(centred / stride, np.array(priors) / stride, shape, ratio, bias)
        cells, cell = shape[0] * shape[1], claims.row * shape[1] + claims.column
        local = claims.prior * cells + cell if grid.prior_first else cell * len(priors) + claims.prior
        anchors.append(first + local)
        claimants.append(claims.object)
        first += cells * len(priors)
    claimant = np.concatenate(claimants)
    return PriorMatches(
        image=_tensor(image[claimant]),
        anchor=_tensor(np.concatenate(anchors)),
        target=_tensor(slot[claimant]),
        level_rows=tuple(map(len, claimants)),
        image_rows=tuple(tuple(np.bincount(image[of], minlength=len(labels)).tolist()) for of in claimants),
        slots=labels.shape[1],
        labels_below=int(labels[valid].max(initial=-1)) + 1,
        ratio=ratio,
        bias=bias,
        first_level=grid.first_level,
        shapes=grid.shapes,
        level_strides=grid.level_strides,
        level_priors=grid.level_priors,
        prior_first=grid.prior_first,
    )


def rows_of_grid(matches: PriorMatches, grid: Grid) -> tuple[slice, int, tuple[int, ...]] | None:
    """Where the rows of a grid stand, what its first candidate is called there, and its number of rows by level.

    None when the layout does not hold all levels of the grid.
    """
    skipped, levels = grid.first_level - matches.first_level, len(grid.shapes)
    if skipped < 0 or skipped + levels > len(matches.shapes):
        return None
    rows = matches.level_rows[skipped : skipped + levels]
    start = sum(matches.level_rows[:skipped])
    shapes, priors = matches.shapes[:skipped], matches.level_priors[:skipped]
    first = sum(height * width * len(of) for (height, width), of in zip(shapes, priors, strict=True))
    return slice(start, start + sum(rows)), first, rows


def check_prior_matches(matches: PriorMatches, targets: Targets, grid: Grid, classes: int) -> None:
    """Raises when a layout was made for other targets, another grid, or labels that the predictions do not have.

    Raises:
        ShapeError: saying which.
    """
    skipped = grid.first_level - matches.first_level
    levels = slice(skipped, skipped + len(grid.shapes))
    laid_out: tuple[tuple[str, object, object], ...] = (
        ("levels (rows, columns)", matches.shapes[levels], grid.shapes),
        ("strides", matches.level_strides[levels], grid.level_strides),
        ("priors (px)", matches.level_priors[levels], grid.level_priors),
        ("prior_first", matches.prior_first, grid.prior_first),
    )
    for what, got, expected in laid_out:
        if got != expected:
            raise ShapeError(
                f"Targets.prior_matches: expected a layout for {what} {expected} as in the predictions, got {got}; "
                "call `Criterion.prepare` with the predictions' grid"
            )
    if (len(matches.image_rows[0]), matches.slots) != tuple(targets.labels.shape):
        raise ShapeError(
            f"Targets.prior_matches: expected a layout for (B, M) = {tuple(targets.labels.shape)}, got "
            f"{(len(matches.image_rows[0]), matches.slots)}; call `Criterion.prepare` again after changing the targets"
        )
    if matches.labels_below > classes:
        raise ShapeError(
            f"Targets.labels: expected class indices below {classes}, the number of classes the predictions have, "
            f"got {matches.labels_below - 1}"
        )


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.int64))
