# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Claims laid out on the host equal the definition's, in its order."""

import dataclasses

import pytest
import torch
from tests.losses.anchor_scenes import by_level, joined, pyramid, random_maps
from tests.losses.assign.forms import prepare
from tests.losses.scenes import generator, random_targets

from boxwright.kernels.assign.anchor_ratio import anchor_ratio
from boxwright.losses.assign import AnchorRatio
from boxwright.structures import Assignment, Targets

COUNTS = [(3, 0, 5), (12, 1), (0, 0), (1,), (130, 2), (7, 7)]


def on_borders(targets: Targets) -> Targets:
    """Boxes whose corners are multiples of 4 px: centres fall on borders and middles of cells."""
    return dataclasses.replace(targets, boxes=(targets.boxes / 4).round() * 4)


def assert_identical(got: Assignment, expected: Assignment) -> None:
    for field in ("image", "anchor", "target", "valid", "weight", "normalizer"):
        assert torch.equal(getattr(got, field), getattr(expected, field)), field
    assert got.all_valid
    assert expected.all_valid


@pytest.mark.parametrize("limits", [{}, {"ratio": 2.0}, {"bias": 0.25}, {"bias": 0.0}, {"ratio": 7.0, "bias": 1.0}])
@pytest.mark.parametrize("prior_first", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_the_definition(dtype, prior_first, limits):
    grid, assigner = pyramid(prior_first=prior_first), AnchorRatio(**limits)
    for seed, counts in enumerate(COUNTS):
        preds = joined(random_maps(generator(0), len(counts), grid, dtype=dtype), grid).final
        for targets in (plain := random_targets(generator(seed), counts, dtype=dtype), on_borders(plain)):
            assert_identical(anchor_ratio(assigner, preds, targets), assigner(preds, targets))


def test_single_levels_of_a_prepared_pyramid_equal_the_definition():
    grid, targets = pyramid(), random_targets(generator(2), (5, 0, 40))
    outputs, prepared = by_level(random_maps(generator(0), 3, grid), grid), prepare(AnchorRatio(), targets, grid)

    for preds in (*outputs.auxiliary, outputs.final):
        assert_identical(anchor_ratio(AnchorRatio(), preds, prepared), AnchorRatio()(preds, targets))
