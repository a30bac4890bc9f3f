# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The comparison of two checkouts sees what differs; that it runs is in `test_benchmarks.py`."""

import importlib
import json
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "benchmarks" / "compare_checkouts.py"


@pytest.fixture
def script(monkeypatch):
    """The module; what it imports beside it is found as on the command line."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    for name in ("harness", "compare_checkouts"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module("compare_checkouts")


@pytest.mark.timeout(900)  # seconds of processor time, but minutes on a machine that trains beside it
def test_a_changed_help_text_is_a_difference(tmp_path):
    import shutil

    other = tmp_path / "other"
    shutil.copytree(ROOT / "src", other / "src", ignore=shutil.ignore_patterns("__pycache__"))
    app = other / "src" / "boxwright" / "cli" / "app.py"
    app.write_text(app.read_text(encoding="utf-8").replace("Trains, explains and ships", "Trains and ships"))

    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(ROOT), str(other), "--smoke", "--only", "help"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 1, done.stdout + done.stderr
    row = done.stdout.splitlines()[-1]
    assert row.startswith("help of every command  differs: boxwright, line "), done.stdout
    assert "Trains, explains and ships" in row
    assert "Trains and ships" in row.partition(" -> ")[2]


def test_what_is_no_checkout_is_told(script, tmp_path):
    with pytest.raises(SystemExit, match="nowhere: neither a folder with src/boxwright nor a commit"):
        script.checkout_of("nowhere", tmp_path)
    assert script.checkout_of(str(ROOT), tmp_path) == ROOT


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({"a": "1\n2"}, {"a": "1\n2"}, None),
        ({"a": "1\n2", "b": "3"}, {"a": "1\n4", "b": "3"}, "a, line 2: '2' -> '4'"),
        ({"a": "1"}, {"a": "1\n2"}, "a, line 2: None -> '2'"),
        ({"a": "1", "b": "2"}, {"a": "3", "b": "4"}, "a, line 1: '1' -> '3' (and 1 more of 2)"),
        ({"a": "1", "b": "2"}, {"a": "1"}, "b: only in the old checkout"),
        ({"a": "1"}, {"a": "1", "b": "2"}, "b: only in the new checkout"),
        ({"a": "1\n"}, {"a": "1"}, "a: the ends of lines"),
    ],
)
def test_the_first_difference_is_told(script, old, new, expected):
    assert script.first_difference(old, new) == expected


def test_two_sides_without_an_answer_are_not_equal(script, capsys):
    assert script.compared("a row", {"q": "1"}, {"q": "1"})
    assert not script.compared("a row", {"no answer": "ValueError: x"}, {"no answer": "ValueError: x"})
    assert not script.compared("a row", {}, {})
    assert capsys.readouterr().out.splitlines() == [
        "a row  equal (1 answers)",
        "a row  differs: no answer, old checkout: ValueError: x; new checkout: ValueError: x",
        "a row  differs: no answer, old checkout: nothing; new checkout: nothing",
    ]


def test_a_row_that_fails_keeps_the_others(script, monkeypatch):
    import boxwright

    monkeypatch.setenv("PYTHONPATH", str(Path(boxwright.__file__).parents[1]))
    monkeypatch.setattr(script, "QUESTIONS", {"good": lambda size: {"q": "1"}, "bad": lambda size: {}["x"]})
    assert script.work(["bad", "good"], Namespace()) == {"bad": {"no answer": "KeyError: 'x'"}, "good": {"q": "1"}}


def test_the_package_of_another_side_is_refused(script, monkeypatch, tmp_path):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(SystemExit, match="is not the package of this side"):
        script.work(["good"], Namespace())


def test_times_are_no_numbers_of_a_run(script, tmp_path):
    (tmp_path / "metrics.csv").write_text("epoch,train/main/box,seconds,images/s\n1,0.123456789,5,6\n")
    assert script.numbers_of(tmp_path) == {"epoch 1 epoch": "1", "epoch 1 train/main/box": "0.123456789"}


def test_a_saved_state_is_told_to_the_bit(script):
    import torch

    def state(value):
        return dict(script.state_of({"a": [torch.tensor([1.0, value])], "n": 3, "seconds": 4.0}))

    near = torch.nextafter(torch.tensor(2.0), torch.tensor(3.0)).item()
    assert set(state(2.0)) == {"state.a[0]", "state.n"}
    assert state(2.0) == state(2.0)
    assert state(2.0)["state.a[0]"] != state(near)["state.a[0]"]


def test_keys_of_a_component_have_default_and_allowed_words(script):
    from boxwright.losses.terms.box import BoxOverlap

    lines = script.keys_of(BoxOverlap).splitlines()
    assert lines[0] == "kind = 'box_overlap' ['box_overlap']"
    assert any(line.startswith("overlap = ") and "'ciou'" in line for line in lines), lines


def test_sides_take_turns(script):
    assert script.in_turn(("a", "b"), 3) == ["a", "b", "b", "a", "a", "b"]


def test_rows_of_every_kind_of_result_are_read(script, tmp_path):
    file = tmp_path / "results.jsonl"
    results = [
        {"question": "detect, 7 objects", "ours_ms": 5.0, "peer_ms": 9.0},
        {"classes": 80, "ours_ms": 7.0, "fp32_ms": 8.0, "peer_ms": 9.0},
        {"images_per_second": {"ours": 50.0}},
    ]
    file.write_text("\n".join(map(json.dumps, results)))
    assert script.milliseconds(file) == {"detect, 7 objects": 5.0, "ours": 7.0, "fp32": 8.0, "an image": 20.0}


def test_a_room_is_found_under_its_older_name(script, monkeypatch):
    """Only where it has no module of its own."""
    monkeypatch.setattr(script, "MOVED", {"boxwright.lately": "boxwright.losses", "boxwright.losses": "nowhere"})
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, script.OldNames()])
    late = importlib.import_module("boxwright.lately.schedule")
    monkeypatch.delitem(sys.modules, "boxwright.lately.schedule")
    monkeypatch.delitem(sys.modules, "boxwright.lately")

    from boxwright.losses import schedule

    assert late.Linear is schedule.Linear
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("boxwright.lately.nothing")
