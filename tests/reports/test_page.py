# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""docs/inspect.md: its code runs, and it names every finding, fate, table and key there is."""

import re
from dataclasses import fields
from pathlib import Path

from boxwright.inspector.joined import TABLES
from boxwright.inspector.tensors import About
from boxwright.reports.legend import FINDING_WORDS, SIGNS

PAGE = (Path(__file__).parents[2] / "docs" / "inspect.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_the_python_of_the_page_runs(capsys):
    code = next(
        block for block in re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL) if "bw." in block
    )
    exec(compile(code, "inspect.md", "exec"), {})

    told = capsys.readouterr().out
    assert "main/box" in told
    assert "no candidate learns from it" in told


def test_every_finding_fate_table_and_key_is_on_the_page():
    for code in FINDING_WORDS:
        assert f"| `{code}` |" in PAGE
    for sign in SIGNS.values():
        assert f"| {sign.title} |" in PAGE
    for name in TABLES:
        assert f"| `{name}` |" in PAGE
    for of in fields(About):
        assert f"`{of.name}`" in PAGE, of.name


def test_the_dump_on_the_page_is_that_of_the_example():
    example = (Path(__file__).parents[2] / "examples" / "dump_tensors.py").read_text(encoding="utf-8")
    (block,) = (block for block in BLOCKS if "def dump" in block)
    for line in block.splitlines()[1:-1]:
        assert line in example
