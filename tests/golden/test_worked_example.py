# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The published worked example: every tensor on the way from targets to claims (tests/golden/worked_example.json)."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.golden.inputs import BUILDERS

from boxwright.losses.assign.anchor_ratio import AnchorRatio

FOLDER = Path(os.environ.get("BOXWRIGHT_GOLDEN") or Path(__file__).parent)
EXAMPLE = json.loads((FOLDER / "worked_example.json").read_text())
INPUTS = BUILDERS["worked_example"]({"seed": 0})
SHAPE = (40, 40)
PRINTED = 1e-4  # the walk-through prints four decimals


@pytest.fixture(scope="module")
def boxes() -> np.ndarray:
    return INPUTS["targets"][:, 2:].astype(np.float64) * EXAMPLE["scale"][2:6]


@pytest.fixture(scope="module")
def claims(boxes):
    priors = torch.from_numpy(INPUTS["anchors"][0].astype(np.float64))
    return AnchorRatio(ratio=EXAMPLE["setup"]["anchor_t"]).claims(torch.from_numpy(boxes), priors, SHAPE)


def test_targets_in_cells(boxes):
    expected = np.array(EXAMPLE["targets_in_grid_units"])

    assert EXAMPLE["scale"][2:6] == [40, 40, 40, 40]
    np.testing.assert_array_equal(INPUTS["targets"][:, :2], expected[:, :2])
    np.testing.assert_allclose(boxes, expected[:, 2:], atol=PRINTED)


def test_which_priors_fit(claims):
    assert claims.fits.int().tolist() == EXAMPLE["match_mask_anchor_by_target"]
    prior, target = claims.fits.nonzero(as_tuple=True)
    assert [list(pair) for pair in zip(target.tolist(), prior.tolist(), strict=True)] == EXAMPLE[
        "matched_pairs_target_anchor"
    ]
    assert len(prior) == EXAMPLE["matched_count"]


def test_directions(claims):
    assert EXAMPLE["direction_mask_order"][0] == "centre"
    matched = claims.fits.nonzero()[:, 1]
    assert claims.directions[:, matched].int().tolist() == EXAMPLE["direction_mask"]
    assert len(claims.prior) == EXAMPLE["assigned_count"]


def test_claimed_cells(boxes, claims):
    printed = EXAMPLE["rows_12_to_17"]
    some = slice(12, 17)
    offsets = np.array([(0, 0), (0.5, 0), (0, 0.5), (-0.5, 0), (0, -0.5)])[claims.direction[some]]
    centres = boxes[claims.object[some], :2]

    np.testing.assert_allclose(centres, printed["grid_xy"], atol=PRINTED)
    assert offsets.tolist() == printed["offset"]
    np.testing.assert_allclose(centres - offsets, printed["shifted"], atol=PRINTED)
    assert claims.cell[some].tolist() == printed["cell_col_row"]
