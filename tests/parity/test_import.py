# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Weights of a black-box peer, imported, give its outputs. Runs where the peers are installed (`make bench-peer`)."""

import importlib.util

import pytest
from benchmarks.parity_import import CASES, LIMIT, differences

from boxwright.presets import PRESETS

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.preset)
def test_imported_weights_give_the_outputs_of_the_peer(tmp_path, case):
    if importlib.util.find_spec(case.package) is None:
        pytest.skip(f"{case.package} is not installed; it is in the extra `parity`")
    assert case.preset in PRESETS
    report, found = differences(case, tmp_path)
    assert report.recipe.name == case.preset
    assert not report.left
    assert max(found.values()) < LIMIT, found
