# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The state file of a run: everything resume needs in one file, so that it cannot disagree with itself.

A file is written beside its final place, forced to the disk and renamed: killed at any moment, the previous one is
whole. Only tensors and plain values are inside, and it is read with `weights_only=True`: nothing in it can run code.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch

from boxwright.errors import CheckpointError
from boxwright.models.weights import replace_atomically

STATE_FORMAT = "boxwright-state/1"


def write_atomic(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Calls `write` with a file that takes the place of `path` only when it is complete and on the disk.

    Raises:
        CheckpointError: the disk is full or the folder is not writable; what stood at `path` is untouched.
    """
    try:
        with replace_atomically(path) as temporary, temporary.open("wb") as file:
            write(file)
    except (OSError, RuntimeError) as error:  # torch reports a failed write as RuntimeError
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).splitlines()[0]
        raise CheckpointError(f"{path}: cannot be written: {reason}; what was saved before is untouched") from error


def write_text_atomic(path: Path, text: str) -> None:
    """`write_atomic` for UTF-8 text."""
    write_atomic(path, lambda file: file.write(text.encode()))


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Writes the state of a run, atomically. Tensors, numbers, text, None, and lists and dicts of them only."""
    write_atomic(path, lambda file: torch.save({"format": STATE_FORMAT, **state}, file))


def load_state(path: Path) -> dict[str, Any]:
    """Reads what `save_state` wrote, with all tensors on the CPU.

    Raises:
        CheckpointError: the file is missing, damaged, or not a state file of this format.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such state file; resume needs the folder of a run")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path}: damaged or not a boxwright state file: {reason}") from error
    found = state.get("format") if isinstance(state, dict) else type(state).__name__
    if found != STATE_FORMAT:
        raise CheckpointError(f"{path}: expected a state file of format {STATE_FORMAT}, got {found!r}")
    return dict(state)
