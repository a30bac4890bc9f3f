# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The moving average against its formula, and what it covers."""

import json
import os
from pathlib import Path

import pytest
import torch
from torch import nn

from boxwright.engine.ema import Ema, ema_factor
from boxwright.errors import CheckpointError

FOLDER = Path(os.environ.get("BOXWRIGHT_GOLDEN") or Path(__file__).parents[1] / "golden")
GOLDEN = json.loads((FOLDER / "numeric.json").read_text())["ema_decay"]


def test_factor_equals_golden_numbers():
    for updates, expected in GOLDEN.items():
        assert ema_factor(int(updates)) == pytest.approx(expected, rel=1e-12)


def test_average_follows_the_formula_for_weights_and_statistics():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).double()
    ema = Ema(model)
    expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    for update in range(1, 4):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        model(torch.randn(8, 3, dtype=torch.float64))
        ema.update()
        d = ema_factor(update)
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                expected[name] = d * expected[name] + (1 - d) * tensor

    averaged = ema.module.state_dict()
    for name, tensor in expected.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(averaged[name], tensor, rtol=1e-12, atol=1e-14)
    assert averaged["1.num_batches_tracked"].item() == 3


def test_average_survives_a_weight_reload_of_the_model():
    model = nn.Linear(2, 2)
    ema = Ema(model)

    model.load_state_dict({"weight": torch.full((2, 2), 5.0), "bias": torch.zeros(2)})
    for _ in range(3):
        ema.update()

    # d(1..3) is about 0.0005 .. 0.0015: nearly all of the new weight at once
    torch.testing.assert_close(ema.module.weight, torch.full((2, 2), 5.0), atol=1e-6, rtol=0)


def test_average_needs_no_gradient_and_stays_in_eval_mode():
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout()).train()
    ema = Ema(model)

    assert not ema.module.training
    assert not any(parameter.requires_grad for parameter in ema.module.parameters())
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_state_round_trip_continues_equally():
    torch.manual_seed(0)
    model, other = nn.Linear(2, 2), nn.Linear(2, 2)
    ema = Ema(model)
    ema.update()
    resumed = Ema(other)
    other.load_state_dict(model.state_dict())
    resumed.load_state_dict(ema.state_dict())
    with torch.no_grad():
        model.weight.add_(1)
        other.weight.add_(1)

    ema.update()
    resumed.update()

    assert resumed.updates == 2
    assert torch.equal(ema.module.weight, resumed.module.weight)


def test_state_without_a_count_is_refused():
    with pytest.raises(CheckpointError, match="update count"):
        Ema(nn.Linear(2, 2)).load_state_dict(nn.Linear(2, 2).state_dict())
