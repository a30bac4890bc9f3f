# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""ATSS among blocks of cells equals its definition."""

import pytest
import torch
from tests.kernels.assign.test_anchor_ratio import on_borders
from tests.kernels.assign.test_task_aligned import COUNTS, random_scene
from tests.losses.anchor_scenes import joined, pyramid, random_maps
from tests.losses.assign.forms import assert_same
from tests.losses.scenes import generator, random_targets

from boxwright.kernels.assign.atss import atss
from boxwright.losses.assign import ATSS

OPTIONS = [{}, {"topk": 1}, {"topk": 4}, {"topk": 40}, {"topk": 500}, {"prior_scale": 3.0}, {"quality": "iou"}]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_the_definition(dtype, options):
    assigner = ATSS(**options)
    for seed, counts in enumerate(COUNTS):
        preds, plain = random_scene(seed, counts, dtype, turned=False)
        for targets in (plain, on_borders(plain)):  # centres on borders: several cells are equally near
            assert_same(atss(assigner, preds, targets), assigner(preds, targets))


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("prior_first", [False, True])
def test_equals_the_definition_with_the_priors_of_a_grid(prior_first, options):
    grid, assigner = pyramid(prior_first=prior_first), ATSS(**options)
    for seed, counts in enumerate(COUNTS):
        preds = joined(random_maps(generator(seed), len(counts), grid), grid).final
        for targets in (plain := random_targets(generator(seed), counts), on_borders(plain)):
            assert_same(atss(assigner, preds, targets), assigner(preds, targets))
