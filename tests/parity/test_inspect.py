# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""A black-box peer's batch, dumped and inspected, sums to the peer's own loss. Runs where it is installed."""

import importlib.util

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.mark.parametrize("name", ["detect", "segment", "pose", "oriented", "dual"])
def test_the_inspected_sum_is_the_peers_loss(tmp_path, name):
    if importlib.util.find_spec("ultralytics") is None:
        pytest.skip("ultralytics is not installed; it is in the extra `parity`")
    from benchmarks.parity_inspect import CASES, LIMIT, compared

    assert name in CASES
    found = compared(name, tmp_path)
    assert found.difference < LIMIT, (found.peer, found.inspected)
    assert len(found.inspection.objects) == found.rows
