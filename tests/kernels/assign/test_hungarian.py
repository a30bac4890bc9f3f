# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Matching of all layers at once equals the definition, layer by layer."""

import dataclasses

import pytest
import torch
from tests.losses.assign.forms import assert_same, prepare
from tests.losses.query_scenes import LOC, query_predictions
from tests.losses.scenes import generator, random_targets

from boxwright.kernels.assign import hungarian as module
from boxwright.kernels.assign.hungarian import assign_many, costs_of, hungarian
from boxwright.losses.assign import Hungarian
from boxwright.structures import Predictions, Targets

# Objects of each image beside nine queries: fewer, none at all, one, more than queries.
COUNTS = [(3, 0, 5), (0, 0), (1,), (130, 2), (9, 7)]
OPTIONS = [
    {},
    {"focal": False},
    {"alpha": 0.4, "gamma": 1.0},
    {"class_gain": 1.0, "l1_gain": 0.5, "giou_gain": 3.0},
    {"attribute_gains": {"loc": 1.5}},
]


def scene(seed: int, counts: tuple[int, ...], dtype: torch.dtype) -> tuple[Predictions, Targets]:
    source = generator(seed)
    preds = query_predictions(source, len(counts), 9, dtype=dtype, attributes=True)
    targets = random_targets(source, counts, dtype=dtype)
    loc = torch.randint(-1, LOC, targets.labels.shape, generator=source)
    return preds, dataclasses.replace(targets, attributes={"loc": loc})


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("objectness", [False, True])
@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_the_definition(dtype, exclusive, objectness, options):
    assigner = Hungarian(**options)
    for seed, counts in enumerate(COUNTS):
        preds, targets = scene(seed, counts, dtype)
        plane = torch.randn(preds.logits.shape[:2], generator=generator(seed), dtype=torch.float64).to(dtype)
        preds = dataclasses.replace(preds, exclusive=exclusive, objectness=plane if objectness else None)

        got, expected = hungarian(assigner, preds, targets), assigner(preds, targets)

        assert_same(got, expected)
        for field in ("image", "anchor", "target"):
            assert torch.equal(getattr(got, field), getattr(expected, field)), field


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_objects_cost_the_same_in_total(dtype):
    # Which of two equal objects takes which query is decided by rounding: the queries and the total are not.
    for seed in range(6):
        preds, targets = scene(seed, (8, 4), dtype)
        twins = targets.boxes.clone()
        twins[:, 1::2] = targets.boxes[:, 0:-1:2]
        targets = Targets(torch.zeros_like(targets.labels), twins * targets.valid[..., None], targets.valid)

        got, expected = hungarian(Hungarian(), preds, targets), Hungarian()(preds, targets)

        assert torch.equal(got.anchor, expected.anchor)
        table = torch.stack([Hungarian().costs(preds, targets, image) for image in (0, 1)])
        totals = [table[pairs.image, pairs.target, pairs.anchor].sum() for pairs in (got, expected)]
        torch.testing.assert_close(*totals)


def test_layers_together_equal_layers_apart():
    source = generator(4)
    targets = random_targets(source, (3, 0, 8))
    stack = [query_predictions(source, 3, queries) for queries in (6, 6, 4)]

    for preds, got in zip(stack, assign_many(Hungarian(), stack, targets), strict=True):
        alone = hungarian(Hungarian(), preds, targets)
        for name in ("image", "anchor", "target", "valid", "weight", "normalizer"):
            assert torch.equal(getattr(got, name), getattr(alone, name)), name


def test_all_layers_go_to_the_host_in_one_copy(monkeypatch):
    source = generator(5)
    targets = prepare(Hungarian(), random_targets(source, (3, 2)))
    stack, copies, cpu = [query_predictions(source, 2, 6) for _ in range(4)], [], torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: copies.append(tensor.shape) or cpu(tensor))

    assign_many(Hungarian(), stack, targets)

    assert copies == [torch.Size([4 * 5 * 6])]


def test_cutting_the_batch_into_pieces_changes_nothing(monkeypatch):
    preds, targets = scene(3, (5, 0, 9, 2), torch.float64)
    targets = prepare(Hungarian(), targets)
    whole = costs_of(Hungarian(), preds, targets, targets.objects)

    monkeypatch.setattr(module, "CACHE_COSTS", 1)

    assert torch.equal(costs_of(Hungarian(), preds, targets, targets.objects), whole)
