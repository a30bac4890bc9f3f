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

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "benchmarks"
SHARED = {"harness"}  # imported by the others, runs nothing
SCRIPTS = sorted(file.stem for file in FOLDER.glob("*.py") if file.stem not in SHARED)
KEEPING = [name for name in SCRIPTS if not name.startswith("parity_")]
SECONDS = 240  # a smoke run takes a few; here the machine may be busy
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
        print(json.dumps([str(FOLDER / f"{script}.py"), arguments, str(out)]), file=server.stdin, flush=True)
        status = server.stdout.readline()
        assert status, "the process that benchmarks are forked from has died"
        return int(status), out.read_text(encoding="utf-8")

    yield call
    server.stdin.close()
    server.stdout.close()
    server.wait(SECONDS)


def found_row(name, printed):
    """The line of the table that has this name."""
    return re.search(rf"^(?:\| )?{re.escape(name)} *(?:  | \|)(.*\S)", printed, re.MULTILINE)


def kept():
    return {file.name: file.stat().st_size for file in (FOLDER / "results").iterdir()}


@pytest.mark.timeout(SECONDS)
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


def test_every_question_is_known():
    """The scripts are those that README.md describes, so that none is left without one."""
    text = (FOLDER / "README.md").read_text(encoding="utf-8")

    assert SCRIPTS
    assert [name for name in SCRIPTS if f"{name}.py" not in text] == []
