# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""What a user gets from `pip install .`, without installing or building anything over the network."""

import importlib.metadata
import re
import tomllib
import zipfile
from pathlib import Path

import pytest

import boxwright

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LARGEST = 2_500_000  # bytes: code, the page of the report and a licence, no data


def pins():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
    return {normal(line.partition("==")[0]): line.partition("==")[2] for line in lines}


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    builder = pytest.importorskip("hatchling.builders.wheel", reason="hatchling is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    (path,) = builder.WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    with zipfile.ZipFile(path) as archive:
        yield archive


def test_the_wheel_holds_the_whole_package_and_nothing_else(wheel):
    files = {name for name in wheel.namelist() if not name.split("/")[0].endswith(".dist-info")}
    sources = {str(path.relative_to(ROOT / "src")) for path in (ROOT / "src").rglob("*.py")}
    assets = {f"boxwright/reports/assets/report.{kind}" for kind in ("html", "css", "js")}
    assert files == sources | assets | {"boxwright/py.typed"}
    assert sum(info.file_size for info in wheel.infolist()) < LARGEST


def test_the_wheel_names_its_licence_command_and_version(wheel):
    (metadata,) = [name for name in wheel.namelist() if name.endswith("METADATA")]
    text = wheel.read(metadata).decode()
    assert f"\nVersion: {boxwright.__version__}\n" in text
    assert "\nLicense-Expression: Apache-2.0\n" in text
    assert any(name.endswith("licenses/LICENSE") for name in wheel.namelist())
    (entry_points,) = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
    assert "boxwright = boxwright.__main__:main" in wheel.read(entry_points).decode()


def test_the_console_script_is_the_command_line():
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="boxwright")
    from boxwright.cli.app import main

    assert script.load() is main


def test_every_dependency_is_pinned_within_its_bounds():
    from packaging.requirements import Requirement

    extras = PROJECT["optional-dependencies"]
    for text in [*PROJECT["dependencies"], *extras["dev"], *extras["supervision"]]:
        requirement = Requirement(text)
        assert normal(requirement.name) in pins(), f"{requirement.name} is missing in constraints.txt"
        assert requirement.specifier.contains(pins()[normal(requirement.name)], prereleases=True), text


def test_the_licence_is_whole():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    for part in (
        "Version 2.0, January 2004",
        "TERMS AND CONDITIONS",
        "9. Accepting Warranty",
        "APPENDIX: How to apply",
    ):
        assert part in text


def test_the_changelog_has_a_section_for_numerics():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert "## Unreleased" in text or f"## {boxwright.__version__}" in text
    assert "### Numerics" in text


def test_no_file_names_the_place_it_was_written_in():
    """Absolute paths of somebody's machine have no meaning elsewhere."""
    words = ("/" + "work" + "/", "/" + "root" + "/", "/" + "home" + "/")
    suffixes = {".py", ".md", ".toml", ".yaml", ".txt", ".json"}
    folders = ("src", "tests", "benchmarks", "docs")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*")] + list(ROOT.iterdir())
    files = [path for path in files if path.suffix in suffixes and path.is_file()] + [
        ROOT / "Makefile",
        ROOT / ".ci" / "run",
    ]
    assert len(files) > 100
    found = [path.name for path in files if any(word in path.read_text(encoding="utf-8") for word in words)]
    assert not found
