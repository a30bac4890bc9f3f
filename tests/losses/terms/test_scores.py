# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import dataclasses
import math

import pytest
import torch
from tests.losses.scenes import generator, make_targets, random_predictions

from boxwright.losses.terms import SoftScores
from boxwright.structures import Assignment

TARGETS = make_targets([(0, 0, 30, 30), (0, 0, 60, 60)], [(0, 0, 30, 30)], labels=[[2, 0], [1]])


def pairs() -> Assignment:
    return Assignment(
        image=torch.tensor([0, 0, 1, 1]),
        anchor=torch.tensor([5, 9, 0, 0]),
        target=torch.tensor([0, 1, 0, 1]),
        valid=torch.tensor([True, True, True, False]),
        weight=torch.tensor([0.5, 1.0, 0.25, 0.0], dtype=torch.float64),
        normalizer=torch.tensor(4.0, dtype=torch.float64),
    )


def test_equals_a_loop_over_every_entry():
    preds, wanted = random_predictions(generator(0), 2), {(0, 5, 2): 0.5, (0, 9, 0): 1.0, (1, 0, 1): 0.25}

    got = SoftScores()(preds, TARGETS, pairs())

    for image, rows in enumerate(preds.logits.tolist()):
        for anchor, row in enumerate(rows):
            costs = [
                wanted.get((image, anchor, c), 0.0) * math.log1p(math.exp(-z))
                + (1 - wanted.get((image, anchor, c), 0.0)) * math.log1p(math.exp(z))
                for c, z in enumerate(row)
            ]
            assert got[image, anchor].item() == pytest.approx(sum(costs) / 4.0, rel=1e-11)


def test_gradcheck():
    preds = random_predictions(generator(1), 2, (32, 32), (16, 32))
    pair = dataclasses.replace(pairs(), anchor=torch.tensor([0, 1, 2, 0]))

    def run(logits: torch.Tensor) -> torch.Tensor:
        return SoftScores()(dataclasses.replace(preds, logits=logits), TARGETS, pair)

    assert torch.autograd.gradcheck(run, preds.logits)


def test_no_pairs_make_every_entry_background():
    preds = random_predictions(generator(2), 1)
    index = torch.zeros(0, dtype=torch.int64)
    none = Assignment(index, index, index, index.bool(), index.double(), torch.tensor(1.0, dtype=torch.float64))

    got = SoftScores()(preds, make_targets([]), none)
    got.sum().backward()

    expected = torch.nn.functional.softplus(preds.logits.detach(), threshold=100).sum(dim=-1)
    assert torch.allclose(got, expected, rtol=1e-12)
    assert torch.allclose(preds.logits.grad, preds.logits.detach().sigmoid(), rtol=1e-12)
