# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Definitions of assigners and the faster forms that training runs: every scene of these tests holds them equal."""

from functools import partial
from typing import Any

import pytest
import torch

from boxwright import kernels
from boxwright.errors import ShapeError
from boxwright.structures import Assignment, Grid, Predictions, Targets

# A weight may be the sixth power of an overlap that float32 knows to 2e-6; in float64 rounding alone differs.
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-11}


def faster(assigner: Any, preds: Predictions, targets: Targets) -> Assignment:
    """Pairs by the faster form."""
    kernel = kernels.kernel_of(assigner)
    assert kernel is not None, f"{type(assigner).__name__} has no faster form"
    return kernel(assigner, preds, targets)


def prepare(assigner: Any, targets: Targets, grid: Grid | None = None) -> Targets:
    """Targets as `Criterion.prepare` lays them out for the faster form."""
    step = kernels.kernel_of(assigner, "prepare")
    assert step is not None, f"{type(assigner).__name__} lays out nothing"
    return step(assigner, targets, grid)


def pairs_of(assigner: Any, preds: Predictions, targets: Targets) -> Assignment:
    """Pairs by the definition, after a look that the faster form gives the same."""
    by_definition = assigner(preds, targets)
    assert_same(faster(assigner, preds, targets), by_definition)
    return by_definition


def assert_same(got: Assignment, expected: Assignment) -> None:
    """Both hold the same pairs (as often) with the same weights; unused slots weigh nothing."""
    tolerance = TOLERANCE[expected.weight.dtype]
    assert got.weight.dtype == expected.weight.dtype
    assert got.normalizer.dtype == expected.normalizer.dtype
    rows, wanted = sorted_pairs(got), sorted_pairs(expected)
    assert [row[:3] for row in rows] == [row[:3] for row in wanted]
    weights, wishes = (torch.tensor([row[3] for row in side], dtype=torch.float64) for side in (rows, wanted))
    torch.testing.assert_close(weights, wishes, rtol=tolerance, atol=tolerance, equal_nan=True)
    torch.testing.assert_close(got.normalizer, expected.normalizer, rtol=tolerance, atol=tolerance, equal_nan=True)
    assert got.weight[~got.valid].eq(0).all()


def sorted_pairs(pairs: Assignment) -> list[tuple[int, int, int, float]]:
    """(image, anchor, slot, weight) of the valid pairs, in this order."""
    columns = (pairs.image, pairs.anchor, pairs.target, pairs.weight)
    return sorted(zip(*(column[pairs.valid].tolist() for column in columns), strict=True))


def assert_refused(assigner: Any, preds: Predictions, targets: Targets, message: str) -> None:
    """Both forms raise a `ShapeError` with this message."""
    for form in (assigner, partial(faster, assigner)):
        with pytest.raises(ShapeError, match=message):
            form(preds, targets)
