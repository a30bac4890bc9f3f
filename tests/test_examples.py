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
DUMP = EXAMPLES / "dump_tensors.py"


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


def test_a_dumped_batch_is_inspected_and_has_the_strangers_loss(tmp_path):
    out = run(DUMP, "--out", str(tmp_path / "batch.npz"), "--steps", "20")

    words = [sys.executable, "-m", "boxwright", "inspect", "--tensors", "batch.npz", "--out", "seen"]
    told = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=120).stdout
    difference = re.search(r"loss here ([\d.]+), in the file ([\d.]+), difference (\S+)", told)
    assert float(difference[1]) == pytest.approx(float(out.split()[-1]), rel=1e-4)
    assert abs(float(difference[3])) < 1e-5 * float(difference[1])
    assert (tmp_path / "seen" / "report.html").stat().st_size > 10_000
    assert "lying" in told


def test_dumping_takes_twenty_lines_and_nothing_of_ours():
    tree = ast.parse(DUMP.read_text(encoding="utf-8"))
    (dump,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "dump"]

    assert dump.end_lineno - dump.lineno < 20
    assert {node.id for node in ast.walk(dump) if isinstance(node, ast.Name)} <= {
        "Any", "Mapping", "Path", "Tensor", "str", "path", "outputs", "rows", "about", "arrays", "labels", "name",
        "tensor", "text", "np", "json",
    }  # fmt: skip


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.py")), ids=lambda file: file.stem)
def test_a_stranger_needs_no_model_and_no_data_of_ours(file):
    names = {
        node.module
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("boxwright")
    }

    assert names == {"boxwright.losses"}
