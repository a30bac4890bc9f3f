# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Fixtures for every room."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """`shared_data(name)`: a folder of real data, or a skip that says why.

    The environment variable BOXWRIGHT_DATA names the folder; by default `shared/data` beside the repository.
    """
    root = Path(os.environ.get("BOXWRIGHT_DATA") or Path(__file__).parents[2] / "shared" / "data")

    def find(name: str) -> Path:
        folder = root / name
        if not folder.exists():
            pytest.skip(f"no real data at {folder}; set BOXWRIGHT_DATA to a folder that holds {name!r}")
        return folder

    return find


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests never read or write the user's own cache."""
    monkeypatch.setenv("BOXWRIGHT_CACHE", str(tmp_path_factory.getbasetemp() / "boxwright-cache"))
