# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import math

import pytest
import torch
from torch import nn

from boxwright.models.heads.residual_flow import ResidualFlow


def shaken(seed: int = 0) -> ResidualFlow:
    """A flow that is far from its start."""
    torch.manual_seed(seed)
    flow = ResidualFlow(layers=4, hidden=16).double()
    for module in flow.modules():
        if isinstance(module, nn.Linear) and module.out_features == 1:
            nn.init.normal_(module.weight, std=0.3)
            nn.init.normal_(module.bias, std=0.3)
    return flow


def test_starts_as_the_standard_normal():
    got = ResidualFlow()(torch.tensor([[0.0, 0.0], [1.0, -2.0]]))

    assert got.tolist() == pytest.approx([-math.log(2 * math.pi), -2.5 - math.log(2 * math.pi)], rel=1e-6)


def test_stays_a_density():
    step = 0.05
    axis = torch.arange(-14, 14, step, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)

    with torch.no_grad():
        got = shaken()(grid)

    assert got.std() > 1
    assert (got.exp().sum() * step**2).item() == pytest.approx(1, abs=2e-3)


def test_computes_in_its_own_precision_and_answers_in_that_of_the_residuals():
    flow = ResidualFlow()

    got = flow(torch.zeros(3, 2, dtype=torch.float64))
    got.sum().backward()

    assert got.dtype == torch.float64
    assert all(parameter.grad is not None for parameter in flow.parameters())
    assert flow(torch.zeros(0, 2)).shape == (0,)


def test_learns_where_residuals_are():
    torch.manual_seed(0)
    flow, residuals = ResidualFlow(layers=4, hidden=16), torch.randn(512, 2) * 0.5 + torch.tensor([1.0, -1.0])
    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-2)
    before = flow(residuals).mean().item()

    for _ in range(60):
        optimizer.zero_grad()
        (-flow(residuals).mean()).backward()
        optimizer.step()

    # The best there is: minus the entropy of that normal distribution.
    best = -(1 + math.log(2 * math.pi) + 2 * math.log(0.5))
    assert before < best - 1
    assert flow(residuals).mean().item() == pytest.approx(best, abs=0.1)
