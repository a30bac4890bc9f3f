# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Fixtures for every room."""

import os
from collections.abc import Callable, Iterator
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


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., tuple[int, str]]]:
    """Runs one command in an empty folder, as `main` does; gives (exit status, output)."""
    from typer.testing import CliRunner

    from boxwright.cli import app, console
    from boxwright.errors import BoxwrightError

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")

    def run(*words: object) -> tuple[int, str]:
        result = CliRunner().invoke(app.app, [str(word) for word in words])
        if isinstance(result.exception, BoxwrightError):
            return 1, f"{type(result.exception).__name__}: {result.exception}"
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.output

    console.out.cache_clear()  # it remembers the stream it was made for; each test has its own
    yield run
    console.out.cache_clear()
