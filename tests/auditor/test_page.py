# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""docs/audit.md lists the checks that are run, its commands and code work, and its limits are those of the code."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest
import typer

from boxwright.auditor import errors_ranked
from boxwright.auditor.checks import CHECKS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "audit.md"
TEXT = PAGE.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def builder():
    spec = importlib.util.spec_from_file_location("build_audit", ROOT / "docs" / "build_audit.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_list_is_that_of_the_code(builder):
    assert builder.page(TEXT) == TEXT, "run `make docs`"
    listed = re.findall(r"^\| `(\w+)` \| (?:error|warning|note) \|", TEXT, re.MULTILINE)
    assert sorted(listed) == sorted(check.code for check in CHECKS)


def test_the_readme_links_the_page():
    assert "](docs/audit.md)" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_option_is_there_and_explained():
    from boxwright.cli.app import app

    command = typer.main.get_command(app).commands["audit"]
    options = {option for parameter in command.params for option in parameter.opts if option.startswith("--")}
    shown = set(re.findall(r"--[a-z][a-z-]+", TEXT.partition("## Who can be learned")[0]))
    assert shown <= options
    assert options - shown <= {"--device"}
    for line in re.findall(r"^boxwright (.*)$", TEXT, re.MULTILINE):
        assert shlex.split(line)[0] in typer.main.get_command(app).commands


def test_the_python_block_runs(tmp_path, monkeypatch, capsys):
    (code,) = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(code.replace("train=40, val=10", "train=6, val=2"), {})
    assert capsys.readouterr().out.startswith("True [")


def test_limits_are_those_of_the_code():
    assert (errors_ranked.SURE, errors_ranked.APART, errors_ranked.SAME, errors_ranked.ADVANTAGE) == (
        0.5,
        0.3,
        0.6,
        0.25,
    )
    for words in ("score of 0.5 or more that overlaps no label by 0.3", "by 0.25 surer", "between 0.3 and 0.6"):
        assert words in TEXT
