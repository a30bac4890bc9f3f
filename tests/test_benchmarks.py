# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Every benchmark still runs: its smoke form ends well, answers every question of the full form and keeps nothing."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from boxwright.presets import families
from boxwright.vocabulary import TASK_NAMES

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "benchmarks"
SHARED = {"harness"}  # imported by the others, runs nothing
SCRIPTS = sorted(file.stem for file in FOLDER.glob("*.py") if file.stem not in SHARED)
# What every benchmark imports is imported once; each one then runs in a process of its own, forked from this one.
# A line of standard input is a call: the script, its arguments, and the file that it prints to.
ZYGOTE = """
import json, os, runpy, sys
import torch, boxwright.api, boxwright.losses

for line in sys.stdin:
    script, arguments, out = json.loads(line)
    child = os.fork()
    if child == 0:
        file = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(file, stream)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.argv, sys.path[0] = [script, *arguments], os.path.dirname(script)
        status = 0
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
            if isinstance(end.code, str):
                print(end.code)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            status = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """`run(script, *arguments)`: exit status and what was printed, without any real data and with an own cache."""
    folder = tmp_path_factory.mktemp("benchmarks")
    environment = {
        **os.environ,
        "BOXWRIGHT_DATA": str(folder / "none"),
        "BOXWRIGHT_CACHE": str(folder / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    server = subprocess.Popen(
        [sys.executable, "-c", ZYGOTE],
        cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip

    def call(script, *arguments):
        out = folder / "printed.txt"
        print(
            json.dumps([str((FOLDER / script).with_suffix(".py")), arguments, str(out)]), file=server.stdin, flush=True
        )
        status = server.stdout.readline()
        assert status, "the process that benchmarks are forked from has died"
        return int(status), out.read_text(encoding="utf-8")

    yield call
    server.stdin.close()
    server.stdout.close()
    server.wait(timeout=60)


def found_row(name, printed):
    """The line of the table that has this name."""
    return re.search(rf"^(?:\| )?{re.escape(name)} *(?:  | \|)(.*\S)", printed, re.MULTILINE)


def kept():
    return {file.name: file.stat().st_size for file in (FOLDER / "results").iterdir()}


@pytest.mark.timeout(900)  # seconds of processor time, but minutes on a machine that trains beside it
@pytest.mark.parametrize("script", SCRIPTS)
def test_the_smoke_form_has_every_row_of_the_full_form_and_keeps_nothing(run, script):
    before = kept()
    status, listed = run(script, "--list")
    assert status == 0, listed
    names = listed.splitlines()
    assert len(names) == len(set(names)) > 0

    status, printed = run(script, "--smoke")

    assert status == 0, printed
    assert printed.startswith("smoke run: smallest sizes, one round; no number here is a measurement\n")
    assert [name for name in names if not found_row(name, printed)] == [], printed
    assert kept() == before


def test_the_smoke_form_of_the_sizes_of_models_has_every_family_and_task_and_writes_nothing(run):
    docs = ROOT / "docs"
    before = {file: file.stat().st_mtime_ns for file in (docs / "models.md", *(docs / "images").iterdir())}

    status, printed = run(docs / "build_models", "--smoke")

    assert status == 0, printed
    assert re.findall(r"^### (.*)$", printed, re.MULTILINE) == list(families())
    assert re.findall(r"^(\w+)  picture of ", printed, re.MULTILINE) == list(TASK_NAMES)
    rows = dict(re.findall(r"^\| `([\w-]+)` \| (.*) \|$", printed, re.MULTILINE))
    assert list(rows) == [tasks["detect"][0] for tasks in families().values()]
    for cells, tasks in zip(rows.values(), families().values(), strict=True):  # a column with numbers for each task
        assert re.fullmatch(r"[\d.]+ / [\d.]+", cells.split(" | ")[-1])
        assert len(cells.split(" | ")) == len(tasks)
    assert {file: file.stat().st_mtime_ns for file in before} == before


def test_a_smoke_run_keeps_its_lines_in_the_folder_that_is_named(run, tmp_path):
    status, printed = run("bench_nms", "--smoke", "--results", str(tmp_path / "new"))

    assert status == 0, printed
    lines = [json.loads(line) for line in (tmp_path / "new" / "nms.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {line["question"] for line in lines} == {
        "1 image, 10 000 candidates, 1 class",
        "1 image, 10 000 candidates, 80 classes",
        "16 images, 640 px, conf 0.001, multi-label",
    }
    assert all(line["smoke"] and line["kept"] > 0 and line["ours_ms"] > 0 for line in lines)


def test_a_cell_that_fails_ends_with_status_1(run, tmp_path):
    """`families` counts against the golden file; with another one every count is wrong."""
    script = tmp_path / "families_of_nobody.py"
    script.write_text(
        f"import sys\nsys.path.insert(0, {str(FOLDER)!r})\nimport families\n"
        "families.CLASSES = dict.fromkeys(families.CLASSES, 7)\nfamilies.main()\n"
    )

    status, printed = run(script, "--smoke", "--only", "yolo26n")

    assert status == 1, printed
    assert re.search(r"\*\*\d+ \(708\), expected \d+ \(708\)\*\*.*\n1 cells failed", printed), printed


def test_the_readme_names_every_script_and_its_commands_are_read(run):
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert SCRIPTS
    assert [name for name in SCRIPTS if f"{name}.py" not in text] == []

    calls = re.findall(r"python benchmarks/(\w+)\.py((?:[^\n]|(?<=\\)\n)*)", text)
    assert {name for name, _ in calls} >= {"bench_criteria", "bench_train_step", "families"}
    for name, rest in calls:
        words = re.sub(r"\[[^]]*\]|\\\n", " ", rest).split("#")[0].split()
        status, printed = run(name, *words, "--list")
        assert status == 0, f"{name} {' '.join(words)}: {printed}"
