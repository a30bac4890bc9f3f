# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Every measure of the house is at least as good as it once was, and counts what it says."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.house import measures
from tests.house.measures import (
    Measure,
    Walk,
    bounds,
    circles,
    classes_defined_twice,
    import_graph,
    lost_citations,
    lowered,
    over,
    table,
)

ROOT = Path(__file__).parents[2]

# Seconds of processor time, but minutes on a machine that trains beside it.
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def now():
    """The measures of a process of their own: shape checks of the tests would add functions to a step."""
    printed = subprocess.run(
        [sys.executable, "-m", "tests.house", "--json"],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    return {row["name"]: Measure(**row) for row in json.loads(printed)}


@pytest.mark.parametrize("name", bounds())
def test_a_measure_is_not_worse_than_the_value_it_has_reached(now, name):
    messages = over(bounds(), [now[name]])
    assert not messages, f"{messages[0]}\n(make house; a better value is kept by `python -m tests.house --lower`)"


def test_every_measure_but_the_size_has_a_bound(now):
    assert set(bounds()) == {name for name, one in now.items() if one.bounded}
    assert set(now) - set(bounds()) == {"lines of Python and assets"}


def test_the_step_that_is_followed_goes_through_the_whole_loss(now):
    entered = now["files that one yolov8 detect loss enters"].lines
    names = {line.split()[1] for line in entered}
    assert {
        "losses/criterion.py",
        "kernels/assign/task_aligned.py",
        "kernels/terms/box.py",
        "models/blocks.py",
    } <= names
    carriers = now["functions that the targets of TaskAligned come into"].lines
    assert carriers[0] == "losses/assign/task_aligned.py: TaskAligned.__call__"


def test_the_readme_names_the_files_to_read():
    order = measures.reading_order()
    assert len(order) == 5
    assert {"losses/criterion.py", "engine/step.py"} <= set(order)


def test_a_worse_value_is_told_with_what_was_counted():
    now = [Measure("good", 3, 9, 0, ("a.py",)), Measure("bad", 5, 9, 0, ("b.py", "c.py"))]
    assert over({"good": 3, "bad": 4}, now) == ["bad: 5, was 4\n  b.py\n  c.py"]


def test_bounds_go_down_only():
    now = [Measure("better", 3, 9, 0), Measure("worse", 5, 9, 0), Measure("new", 7, 9, 0),
           Measure("size", 1, 9, 0, bounded=False)]  # fmt: skip
    assert lowered({"better": 4, "worse": 4}, now) == {"better": 3, "worse": 4, "new": 7}


def test_the_table_has_a_row_for_each_measure():
    assert table({"one": 12}, [Measure("one", 3, 40, 0), Measure("longer", 5, 6, 7)]).splitlines() == [
        "measure  before  bound  today  aim",
        "one          40     12      3    0",
        "longer        6      -      5    7",
    ]


def test_the_file_about_tasks_may_ask_for_a_name():
    texts = dict.fromkeys(("vocabulary.py", "engine/step.py"), 'x = task == "obb"')
    assert measures.task_comparisons(texts) == {"engine/step.py": [1]}


def test_a_class_name_with_two_homes_is_found():
    texts = {"a.py": "class A: pass\nclass B: pass", "b.py": "def f():\n    class A: pass"}
    assert classes_defined_twice(texts) == {"A": ["a.py", "b.py"]}


def test_a_file_name_in_two_folders_is_found():
    files = ["a.py", "x/a.py", "x/b.py", "cli/b.py", "kernels/b.py", "data/b.py", "x/__init__.py", "y/__init__.py"]
    assert measures.file_names_used_twice(files) == {"a.py": ["a.py", "x/a.py"]}


def test_circles_are_found_also_behind_type_checking_and_inside_functions():
    graph = import_graph(
        {
            "__init__.py": "",
            "a.py": "if TYPE_CHECKING:\n    from boxwright.b import B",
            "b.py": "def late():\n    import boxwright.c",
            "c.py": "from boxwright import a\nfrom boxwright import d",
            "d.py": "from boxwright import __version__",
        }
    )
    assert graph == {"__init__.py": set(), "a.py": {"b.py"}, "b.py": {"c.py"}, "c.py": {"a.py", "d.py"},
                     "d.py": {"__init__.py"}}  # fmt: skip
    assert circles(graph) == [["a.py", "b.py", "c.py"]]
    assert circles({"a": {"b"}, "b": set()}) == []


def test_a_citation_that_leads_nowhere_is_found(tmp_path):
    # In parts: the citations of this file are followed too.
    book, known, unknown = "sp" + "ec/losses", "C" + ".2", "C" + ".99"
    text = f'"""A part.\n\nSource: {book} {known}, {book} {unknown}.\n"""\n# {book} of it\nx = 1  # {book} {known}\n'
    (tmp_path / "a.py").write_text(text)
    assert lost_citations(tmp_path) == ["a.py:3", "a.py:5"]


def test_a_walk_counts_files_changes_and_what_is_carried(tmp_path):
    """`start` calls `other` with the watched value, `other` calls `start`'s file again, twice."""
    (tmp_path / "one.py").write_text(
        "from two import other\n\n\ndef start(value):\n    other(value)\n    other(0)\n    return end(value)\n\n\n"
        "def end(value):\n    return value\n"
    )
    (tmp_path / "two.py").write_text("def other(value):\n    import one\n    one.end(value)\n")
    before = set(sys.modules)
    sys.path.insert(0, str(tmp_path))
    try:
        from one import start  # type: ignore[import-not-found]

        watched = object()
        walk = Walk(tmp_path).follow(lambda: start(watched), lambda values: any(one is watched for one in values))
    finally:
        sys.path.remove(str(tmp_path))
        for name in set(sys.modules) - before:
            del sys.modules[name]

    # start, other, end, other, end, end
    assert walk.files == {"one.py": 4, "two.py": 2}
    assert walk.changes == 4
    assert walk.carriers == ["one.py: start", "two.py: other", "one.py: end"]
    assert walk.from_body == 2
    assert sys.getprofile() is None
