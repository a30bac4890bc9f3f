# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import numpy as np
import pytest
import torch

from boxwright.kernels.assign.task_aligned import among_best, by_object_then_best, expand


def test_expand_numbers_the_places_of_every_owner():
    number, owner = expand(torch.tensor([2, 0, 3]), 5)

    assert number.tolist() == [0, 1, 0, 1, 2]
    assert owner.tolist() == [0, 0, 2, 2, 2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_order_is_by_object_then_by_metric_with_ties_as_they_stood(dtype):
    owner = torch.tensor([1, 0, 1, 0, 1, 0, 0])
    metric = torch.tensor([0.5, 0.0, 0.5, 2.0, torch.nan, -1.0, 2.0], dtype=dtype)

    assert by_object_then_best(owner, metric).tolist() == [3, 6, 1, 5, 4, 0, 2]


@pytest.mark.parametrize("zero_metric", ["drop", "lowest_index"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", range(10))
def test_among_best_equals_a_loop(seed, dtype, zero_metric):
    source = np.random.default_rng(seed)
    images, slots, anchors, topk = 2, 4, 12, int(source.integers(1, 6))
    # Every pair of slot and anchor at most once; few distinct metrics, so that ties and zeros are common.
    table = source.integers(0, 4, (images, slots, anchors)) / 4
    rows = np.argwhere(source.random(table.shape) < 0.6)
    source.shuffle(rows)
    image, slot, anchor = rows.T
    alive = source.random(len(rows)) < 0.8
    metric = table[image, slot, anchor]

    kept = among_best(
        torch.from_numpy(image * slots + slot),
        torch.from_numpy(metric).to(dtype),
        torch.from_numpy(alive),
        torch.from_numpy(image * anchors + anchor),
        torch.from_numpy(anchor),
        groups=images * slots,
        topk=topk,
        zero_metric=zero_metric,
    )

    chosen = np.zeros(table.shape, dtype=bool)
    chosen[image[alive], slot[alive], anchor[alive]] = True
    live = table * chosen
    for row, (i, j, a) in enumerate(rows):
        best = sorted(range(anchors), key=lambda at, i=i, j=j: (-live[i, j, at], at))[:topk]
        expected = chosen[i, j, a] and a in best and (live[i, j, a] > 0 or zero_metric == "lowest_index")
        assert bool(kept[row]) == expected


def test_nothing_of_nothing():
    empty = torch.zeros(0, dtype=torch.int64)

    kept = among_best(empty, empty.double(), empty.bool(), empty, empty, groups=3, topk=1, zero_metric="lowest_index")

    assert kept.shape == (0,)
