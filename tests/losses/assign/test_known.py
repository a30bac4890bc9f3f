# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import dataclasses

import pytest
import torch
from tests.losses.query_scenes import query_predictions
from tests.losses.scenes import generator, make_targets, random_targets

from boxwright.errors import ShapeError
from boxwright.losses.assign import Known
from boxwright.structures import Assignment

TARGETS = random_targets(generator(0), (2, 1))


def pairs(valid: tuple[bool, ...]) -> Assignment:
    index, mask = torch.arange(len(valid)) % 2, torch.tensor(valid)
    return Assignment(index, index, index, mask, torch.ones(len(valid)), torch.tensor(7.0))


def test_gives_the_pairs_with_their_own_count():
    given = pairs((True, True, False))

    got = Known()(query_predictions(generator(0), 2, 4, role="denoise", known=given), TARGETS)

    assert got.normalizer.item() == 2  # not what the predictions said
    for name in ("image", "anchor", "target", "valid", "weight"):
        assert getattr(got, name) is getattr(given, name)


def test_counts_over_all_ranks(monkeypatch):
    monkeypatch.setattr("boxwright.losses.assign.known.sum_over_ranks", lambda tensor: tensor + 5)

    got = Known()(query_predictions(generator(0), 2, 4, known=pairs((True, True, False))), TARGETS)

    assert got.normalizer.item() == 7


def test_no_pairs_divide_by_one():
    nothing = dataclasses.replace(pairs((False,)))

    assert Known()(query_predictions(generator(0), 2, 4, known=nothing), make_targets([], [])).normalizer.item() == 1


def test_predictions_that_know_nothing_are_refused():
    with pytest.raises(ShapeError, match=r"Predictions.known: expected the pairs of role 'decoder', got None"):
        Known()(query_predictions(generator(0), 2, 4), TARGETS)
