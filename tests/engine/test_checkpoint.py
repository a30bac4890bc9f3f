# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""State files: atomic, readable without running code, and errors that name the file."""

import errno
import os
import resource
import signal
import subprocess
import sys
import textwrap

import pytest
import torch

from boxwright.engine.checkpoint import load_state, save_state, write_atomic, write_text_atomic
from boxwright.errors import CheckpointError


def test_round_trip_of_tensors_and_plain_values(tmp_path):
    state = {"a": torch.arange(3), "b": {"c": [1, 2.5, "x", None, True]}}

    save_state(tmp_path / "state.pt", state)
    found = load_state(tmp_path / "state.pt")

    assert torch.equal(found["a"], state["a"])
    assert found["b"] == state["b"]
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]


def test_a_failed_write_leaves_the_previous_file_whole(tmp_path):
    path = tmp_path / "file.txt"
    write_text_atomic(path, "old")

    def fails(file):
        file.write(b"half of the new")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(CheckpointError, match=r"file.txt: cannot be written: No space left on device; what was saved"):
        write_atomic(path, fails)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]


def test_a_full_disk_during_a_state_is_a_clear_error(tmp_path):
    # A limit on file size is the full disk that needs no root: torch's own writer meets the error.
    code = textwrap.dedent("""
        import resource, signal, sys
        from pathlib import Path
        import torch
        from boxwright.engine.checkpoint import load_state, save_state
        from boxwright.errors import CheckpointError
        path = Path(sys.argv[1])
        save_state(path, {"a": torch.zeros(10)})
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            save_state(path, {"a": torch.zeros(1_000_000)})
        except CheckpointError as error:
            assert len(load_state(path)["a"]) == 10
            print(error)
    """)
    assert resource.RLIMIT_FSIZE is not None
    assert signal.SIGXFSZ is not None

    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "state.pt")], capture_output=True, text=True, check=True
    )

    assert "state.pt: cannot be written:" in done.stdout
    assert "what was saved before is untouched" in done.stdout


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(CheckpointError, match="cannot be written"):
        save_state(tmp_path / "file" / "state.pt", {})


def test_a_missing_file_says_what_is_needed(tmp_path):
    with pytest.raises(CheckpointError, match=r"state.pt: there is no such state file"):
        load_state(tmp_path / "state.pt")


@pytest.mark.parametrize("kept", [0, 10, 500])
def test_a_cut_file_is_damaged(tmp_path, kept):
    path = tmp_path / "state.pt"
    save_state(path, {"a": torch.zeros(100)})
    path.write_bytes(path.read_bytes()[:kept])

    with pytest.raises(CheckpointError, match="damaged or not a boxwright state file"):
        load_state(path)


def test_a_file_that_would_run_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "pwned"),))

    torch.save({"format": "boxwright-state/1", "x": Evil()}, tmp_path / "state.pt")

    with pytest.raises(CheckpointError, match="damaged or not"):
        load_state(tmp_path / "state.pt")
    assert not (tmp_path / "pwned").exists()


def test_a_state_of_another_program_is_refused(tmp_path):
    torch.save({"model": torch.zeros(1)}, tmp_path / "state.pt")

    with pytest.raises(CheckpointError, match="expected a state file of format boxwright-state/1, got None"):
        load_state(tmp_path / "state.pt")
