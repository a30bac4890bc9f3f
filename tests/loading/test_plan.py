# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import os

import pytest

from boxwright.errors import ConfigError, DataError
from boxwright.loading.plan import default_workers, global_batches, rank_share, validation_shape


def test_batches_cover_every_position_once():
    assert global_batches(10, 4, 1) == [range(4), range(4, 8), range(8, 10)]
    assert global_batches(3, 16, 1) == [range(3)]


def test_a_last_batch_smaller_than_the_ranks_joins_the_one_before():
    assert global_batches(9, 4, 2) == [range(4), range(4, 9)]
    assert global_batches(10, 4, 2) == [range(4), range(4, 8), range(8, 10)]
    assert global_batches(11, 4, 4) == [range(4), range(4, 11)]


@pytest.mark.parametrize("world", [1, 2, 3, 4])
@pytest.mark.parametrize("count", [4, 7, 13, 32])
def test_ranks_share_each_batch_in_order_and_evenly(count, world):
    for batch in global_batches(count, 5, world):
        shares = [rank_share(batch, rank, world) for rank in range(world)]
        assert [position for share in shares for position in share] == list(batch)
        assert min(map(len, shares)) >= 1
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_ranks_without_images_and_empty_splits_are_refused():
    with pytest.raises(ConfigError, match="got 2 \\(of 2 images\\) for 3 ranks"):
        global_batches(2, 8, 3)
    with pytest.raises(DataError, match="no usable image"):
        global_batches(0, 8, 1)


@pytest.mark.parametrize(("aspects", "shape"), [
    ([0.75, 0.75], (512, 672)),  # 480 x 640: ceil(15 + .5) and ceil(20 + .5) strides
    ([0.5, 0.75], (512, 672)),
    ([0.75, 1.5], (672, 672)),
    ([1.0, 0.75], (672, 672)),
    ([4 / 3, 1.5], (672, 512)),
])  # fmt: skip
def test_validation_rectangle(aspects, shape):
    assert validation_shape(aspects, 640, 32) == shape


def test_default_workers_leave_a_core_for_each_rank(monkeypatch):
    for cores, world, expected in [(1, 1, 0), (2, 1, 1), (2, 2, 0), (16, 1, 8), (16, 4, 3)]:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _pid, cores=cores: set(range(cores)), raising=False)
        assert default_workers(world) == expected
