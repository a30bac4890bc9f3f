# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import math

import pytest
import torch

from boxwright.losses.functional import bce_with_logits, distribution_focal


def test_bce_of_hand_computed_values():
    z, y = torch.tensor([0.0, 2.0, -2.0, 0.0]), torch.tensor([0.5, 1.0, 1.0, 1.0])

    got = bce_with_logits(z, y, pos_weight=3.0)

    expected = [2 * math.log(2), 3 * math.log1p(math.exp(-2)), 3 * math.log1p(math.exp(2)), 3 * math.log(2)]
    assert got.tolist() == pytest.approx(expected, rel=1e-6)


def test_distribution_focal_by_a_loop_and_its_clamp():
    source = torch.Generator().manual_seed(0)
    raw = torch.randn(3, 4 * 5, generator=source, dtype=torch.float64)
    distances = torch.tensor([[0.0, 1.25, 3.0, 3.99], [-2.0, 4.0, 90.0, 2.5], [0.1, 0.2, 0.3, 0.4]]).double()

    expected = []
    for row, wanted in zip(raw.view(3, 4, 5).tolist(), distances.tolist(), strict=True):
        sides = []
        for values, distance in zip(row, wanted, strict=True):
            clamped = min(max(distance, 0.0), 5 - 1 - 0.01)
            low, log_sum = math.floor(clamped), math.log(sum(map(math.exp, values)))
            share = clamped - low
            sides.append(log_sum - (1 - share) * values[low] - share * values[low + 1])
        expected.append(sum(sides) / 4)

    assert distribution_focal(raw, distances).tolist() == pytest.approx(expected, rel=1e-12)
    assert torch.autograd.gradcheck(lambda x: distribution_focal(x, distances), raw.requires_grad_())
