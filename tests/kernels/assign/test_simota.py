# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""SimOTA among blocks of cells equals its definition."""

import dataclasses

import pytest
import torch
from tests.kernels.assign.test_task_aligned import COUNTS, random_scene
from tests.losses.anchor_scenes import joined, pyramid, random_maps
from tests.losses.assign.forms import assert_same
from tests.losses.scenes import generator, random_targets

from boxwright.kernels.assign.simota import simota
from boxwright.losses.assign import SimOTA
from boxwright.ops.decode import Distance


@pytest.mark.parametrize(
    "options", [{}, {"topk": 3}, {"topk": 200}, {"radius": 1.5, "iou_gain": 1.0}, {"radius": 0.3}, {"quality": "one"}]
)
@pytest.mark.parametrize("objectness", [False, True])
@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_the_definition(dtype, exclusive, objectness, options):
    assigner = SimOTA(**options)
    for seed, counts in enumerate(COUNTS):
        preds, targets = random_scene(seed, counts, dtype, turned=False)
        plane = torch.randn(preds.logits.shape[:2], generator=generator(seed), dtype=torch.float64).to(dtype)
        preds = dataclasses.replace(preds, exclusive=exclusive, objectness=plane if objectness else None)

        assert_same(simota(assigner, preds, targets), assigner(preds, targets))


@pytest.mark.parametrize("prior_first", [False, True])
def test_equals_the_definition_with_several_candidates_a_cell(prior_first):
    grid = pyramid(prior_first=prior_first)
    preds = joined(random_maps(generator(1), 3, grid), grid).final
    preds = dataclasses.replace(preds, grid=dataclasses.replace(grid, prior_wh=None), decoder=Distance(num_bins=1))
    targets = random_targets(generator(2), (9, 0, 30))

    assert_same(simota(SimOTA(), preds, targets), SimOTA()(preds, targets))
