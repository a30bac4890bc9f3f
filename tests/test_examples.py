# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The examples run, and do what they say."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
STRANGER = EXAMPLES / "strangers_model.py"


def run(file, *arguments):
    words = [sys.executable, str(file), *arguments]
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=120).stdout


def test_the_loss_of_a_strangers_model_falls():
    losses = [float(value) for value in re.findall(r"loss per image ([\d.]+)", run(STRANGER, "--steps", "81"))]

    assert len(losses) == 5
    assert losses[-1] < losses[0] / 3


def test_a_strangers_step_has_fifteen_lines():
    (train,) = [
        node
        for node in ast.parse(STRANGER.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name == "train"
    ]

    assert train.end_lineno - train.body[0].lineno <= 19  # with its docstring and the lines a formatter wraps


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.py")), ids=lambda file: file.stem)
def test_a_stranger_needs_no_model_and_no_data_of_ours(file):
    names = {
        node.module
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("boxwright")
    }

    assert names == {"boxwright.losses"}
