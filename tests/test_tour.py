# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The tour is what its build writes, its code is cut out of the source, and the reading order is the README's."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

from boxwright.errors import DataError

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def builder():
    spec = importlib.util.spec_from_file_location("build_tour", DOCS / "build_tour.py")
    module = importlib.util.module_from_spec(spec)
    path = list(sys.path)
    sys.modules["build_tour"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["build_tour"]
    sys.path[:] = path


def test_the_committed_page_is_the_one_that_is_built(builder):
    committed = (DOCS / "tour.md").read_text(encoding="utf-8").splitlines()

    assert committed == builder.build().splitlines(), "run `make docs`"


def test_the_page_shows_every_stage_in_the_order_of_the_flow():
    shown = re.findall(r"^\[src/boxwright/[\w/.]+\]\([^)]+\), `([\w.]+)`", (DOCS / "tour.md").read_text("utf-8"), re.M)

    stages = ["parse_row", "Record", "encode_targets", "Targets", "Criterion.prepare", "Detector.forward"]
    stages += ["Criterion.__call__", "TaskAligned.pairs_of_image", "Assignment", "BoxOverlap.__call__"]
    stages += ["Stepper.run", "Stepper._learn", "postprocess"]
    assert [name for name in shown if name in stages] == stages


def test_code_is_cut_without_docstrings_and_of_a_class_the_fields(builder):
    method = builder.code("boxwright.losses.criterion.Criterion.prepare")
    assert method.startswith(
        "[src/boxwright/losses/criterion.py](../src/boxwright/losses/criterion.py), `Criterion.prep"
    )
    assert "```python\ndef prepare(self, targets: Targets, grid: Grid | None) -> Targets:\n    for rule in" in method
    assert '"""' not in method

    fields = builder.code("boxwright.structures.Assignment")
    assert "\nclass Assignment:\n    image: " in fields
    assert "def " not in fields


def test_a_name_that_is_re_exported_is_cut_where_it_stands(builder):
    file, path = builder.find("boxwright.losses.TaskAligned.candidates")

    assert path == ["TaskAligned", "candidates"]
    assert "class TaskAligned" in file.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "name", ["boxwright.losses.criterion.Criterion.gone", "boxwright.gone.Criterion", "boxwright.errors.__doc__"]
)
def test_a_name_that_is_gone_is_named(builder, name):
    with pytest.raises(DataError, match=rf"docs/tour.in.md: {re.escape(name)}: no class or function"):
        builder.code(name)


def test_the_readme_names_the_reading_order_and_its_length(builder):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    files, lines = zip(*builder.reading(), strict=True)

    positions = [text.index(f"]({file})") for file in files]
    assert positions == sorted(positions)
    said = re.search(r"about (\d[\d ]*) lines", text[positions[0] - 400 : positions[-1] + 400])
    assert abs(int(said[1].replace(" ", "")) - sum(lines)) <= 0.1 * sum(lines), sum(lines)
