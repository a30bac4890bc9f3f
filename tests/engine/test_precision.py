# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Device, number format and where randomness starts."""

import random

import numpy as np
import pytest
import torch

from boxwright.engine import precision
from boxwright.engine.precision import choose_device, choose_precision, default_workers, determinism, seed_everything
from boxwright.errors import ConfigError

CPU = torch.device("cpu")


@pytest.mark.parametrize(("fast", "expected"), [(True, "bf16"), (False, "fp32")])
def test_auto_on_a_cpu_follows_its_instructions(monkeypatch, fast, expected):
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: fast)

    assert choose_precision("auto", CPU).value == expected


def test_a_named_format_is_kept_and_fp16_on_a_cpu_refused():
    assert choose_precision("bf16", CPU).value == "bf16"
    with pytest.raises(ConfigError, match=r"train\.precision: fp16 needs a CUDA device"):
        choose_precision("fp16", CPU)


def test_unknown_and_absent_devices_are_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    assert choose_device("auto") == CPU
    with pytest.raises(ConfigError, match=r"train\.device: expected auto, cpu"):
        choose_device("gpu please")
    with pytest.raises(ConfigError, match="needs CUDA device 3; this machine has 0"):
        choose_device("3")


def test_an_epoch_draws_the_same_numbers_whatever_came_before():
    def draw():
        return random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002

    seed_everything(0, 5, 0)
    first = draw()
    draw()
    seed_everything(0, 5, 0)

    assert draw() == first
    for other in ((1, 5, 0), (0, 6, 0), (0, 5, 1)):
        seed_everything(*other)
        assert draw() != first


def test_determinism_is_restored_and_keeps_memory_unfilled():
    before = torch.are_deterministic_algorithms_enabled()

    with determinism(CPU, enabled=True):
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.utils.deterministic.fill_uninitialized_memory

    assert torch.are_deterministic_algorithms_enabled() == before
    assert torch.utils.deterministic.fill_uninitialized_memory


@pytest.mark.parametrize(
    ("cores", "device", "world", "expected"),
    [(1, "cpu", 1, 0), (2, "cpu", 1, 1), (2, "cpu", 2, 0), (16, "cuda", 1, 8), (16, "cuda", 4, 3), (1, "cuda", 1, 1)],
)
def test_default_workers_follow_the_cores(monkeypatch, cores, device, world, expected):
    monkeypatch.setattr(precision, "available_cores", lambda: cores)

    assert default_workers(torch.device(device), world) == expected
