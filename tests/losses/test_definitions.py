# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""A step by definitions is the step that training runs: pairs, values and gradients of whole criteria."""

import pytest
import torch
from tests.losses import dense_scenes, query_scenes
from tests.losses.anchor_scenes import by_level, pyramid, random_maps
from tests.losses.assign.forms import sorted_pairs
from tests.losses.scenes import generator, random_predictions, random_targets
from torch import Tensor

from boxwright import kernels
from boxwright.losses.assign import ATSS, SimOTA, TaskAligned
from boxwright.losses.criterion import Criterion, LossBreakdown, Rule, Weighted
from boxwright.losses.query_recipes import rtdetr, rtdetr_modern
from boxwright.losses.recipes import yolov5_detect, yolov5_exclusive
from boxwright.losses.terms import BoxOverlap, DistanceBins, SoftScores
from boxwright.ops.denoising import Denoising
from boxwright.structures import Outputs, Targets

# Some objects beside none, one pair at most, nothing at all, a crowd.
COUNTS = [(3, 0, 5), (1,), (0, 0), (120, 4)]
# Float32 rounds sums of thousands of terms; a gradient is compared with the largest of its tensor.
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-10}


def step(criterion: Criterion, outputs: Outputs, targets: Targets, leaves: list[Tensor]) -> tuple[LossBreakdown, list]:
    loss = criterion(outputs, targets, 0.3)
    found = torch.autograd.grad(loss.total, leaves, allow_unused=True)
    return loss, [torch.zeros_like(leaf) if slope is None else slope for leaf, slope in zip(leaves, found, strict=True)]


def assert_equal_steps(criterion: Criterion, outputs: Outputs, targets: Targets, leaves: list[Tensor]) -> None:
    fast, slopes = step(criterion, outputs, targets, leaves)
    with kernels.definitions():
        slow, wanted = step(criterion, outputs, targets, leaves)

    tolerance = TOLERANCE[leaves[0].dtype]
    for label, pairs in slow.assignments.items():
        mine = sorted_pairs(fast.assignments[label])
        assert [row[:3] for row in mine] == [row[:3] for row in sorted_pairs(pairs)], label
    for name, value in slow.components.items():
        torch.testing.assert_close(fast.components[name], value, rtol=tolerance, atol=tolerance, msg=name)
    for slope, want in zip(slopes, wanted, strict=True):
        largest = max([*want.abs().flatten().tolist(), 1e-3])
        torch.testing.assert_close(slope, want, rtol=tolerance, atol=tolerance * largest)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", dense_scenes.CRITERIA)
def test_dense_criteria(name, dtype):
    for seed, counts in enumerate(COUNTS):
        outputs, targets = dense_scenes.scene(name, counts, seed, dtype)
        leaves = [leaf for preds in dense_scenes.branches(outputs) for leaf in dense_scenes.tensors(preds).values()]

        assert_equal_steps(dense_scenes.CRITERIA[name](), outputs, targets, leaves)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "assigner",
    [
        TaskAligned(zero_metric_positives="lowest_index", conflict_scope="all", validity="sum"),
        TaskAligned(level_range=(1.5, 3.0), min_side="second_stride"),
        SimOTA(),
        ATSS(quality="iou"),
    ],
)
def test_other_assigners(assigner, dtype):
    terms = {name: Weighted(term=term) for name, term in (("box", BoxOverlap()), ("cls", SoftScores()))}
    criterion = Criterion(rules={"main": Rule(assigner=assigner, terms=terms | {"dfl": Weighted(term=DistanceBins())})})
    for seed, counts in enumerate(COUNTS):
        preds = random_predictions(generator(seed), len(counts), dtype=dtype)
        targets = random_targets(generator(seed), counts, dtype=dtype)

        assert_equal_steps(criterion, Outputs(preds), targets, [preds.logits, preds.box_raw])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("build", [yolov5_detect, yolov5_exclusive])
def test_anchor_based_criteria(build, dtype):
    grid = pyramid()
    for seed, counts in enumerate(COUNTS):
        maps = random_maps(generator(seed), len(counts), grid, dtype=dtype)
        targets = random_targets(generator(seed), counts, dtype=dtype)

        assert_equal_steps(build(), by_level(maps, grid, exclusive=build is yolov5_exclusive), targets, maps)


@pytest.mark.parametrize("build", [rtdetr, rtdetr_modern])
def test_set_prediction_criteria(build):
    for seed, counts in enumerate(COUNTS):
        targets = random_targets(generator(seed), counts)
        outputs = query_scenes.layers(generator(seed), targets, denoising=Denoising(budget=20))

        assert_equal_steps(build(), outputs, targets, query_scenes.leaves_of(outputs))
