# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import torch

from boxwright.ops.collective import alone, sum_over_ranks, world_size


def test_a_single_process_calls_no_collective(monkeypatch):
    def refuse(*_: object) -> None:
        raise AssertionError("a collective was called")

    monkeypatch.setattr("torch.distributed.all_reduce", refuse)
    value = torch.tensor(3.0)

    assert world_size() == 1
    assert sum_over_ranks(value) is value


def test_alone_computes_as_one_rank_and_ends(monkeypatch):
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 4)
    monkeypatch.setattr("torch.distributed.all_reduce", lambda tensor: tensor.mul_(4))

    assert world_size() == 4
    assert sum_over_ranks(torch.tensor(2.0)).item() == 8
    with alone():
        assert world_size() == 1
        assert sum_over_ranks(torch.tensor(2.0)).item() == 2
    assert world_size() == 4
