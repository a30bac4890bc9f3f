# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Weights on disk: one safetensors file with text metadata, written atomically, loaded with a full report."""

import contextlib
import json
import os
import stat
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from boxwright.errors import CheckpointError
from boxwright.models.network import ClassLayout

FORMAT = "boxwright/1"
CHECKSUM = "crc32"  # of the tensors; in the metadata of files that have one
Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What a load did with every tensor of the file and of the model; names are state-dict keys."""

    matched: tuple[str, ...]
    missing: tuple[str, ...] = ()  # in the model, not in the file
    unexpected: tuple[str, ...] = ()  # in the file, not in the model
    mismatched: tuple[tuple[str, Shape, Shape], ...] = ()  # name, shape in the file, shape in the model
    remapped: tuple[str, ...] = ()  # rows of shared classes were copied by class name, the other rows kept

    @property
    def complete(self) -> bool:
        """Every tensor of the model came from the file and none was left over."""
        return not (self.missing or self.unexpected or self.mismatched or self.remapped)

    def summary(self, most: int = 5) -> str:
        """A count for logs, then a line for each kind of misfit that names at most `most` tensors."""
        total = len(self.matched) + len(self.missing) + len(self.mismatched) + len(self.remapped)
        lines = [f"{len(self.matched)} of {total} tensors loaded"]
        shapes = [f"{name} (file {_sides(file)}, model {_sides(model)})" for name, file, model in self.mismatched]
        for title, names in (
            ("class rows copied by name", self.remapped),
            ("not in the file", self.missing),
            ("not in the model", self.unexpected),
            ("of another shape", shapes),
        ):
            if names:
                more = f" and {len(names) - most} more" if len(names) > most else ""
                lines.append(f"{len(names)} {title}: {', '.join(names[:most])}{more}")
        return "\n".join(lines)


@contextlib.contextmanager
def replace_atomically(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside `path`; when the block ends well it is flushed to disk and takes `path`'s place.

    Killed at any moment, `path` is the old file or the new one, whole. The temporary name is always the same, so what a
    kill leaves behind is overwritten by the next write.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        temporary.write_bytes(b"")  # a new file shows which permissions the user's umask gives
        mode = stat.S_IMODE(temporary.stat().st_mode)
        yield temporary
        temporary.chmod(mode)  # safetensors writes a file that only its owner can read
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename itself
    finally:
        os.close(folder)


def save_weights(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Writes tensors and text metadata so that `path` holds, at any moment, the old file or the new one.

    `metadata` gets `format` and a checksum of the tensors added; `recipe`, `names`, `class_ids`, `epoch`
    and `metrics` are the keys we read.

    Raises:
        CheckpointError: the disk refuses; the previous file is untouched.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    told = {"format": FORMAT, **metadata, CHECKSUM: _checksum(tensors)}
    try:
        with replace_atomically(path) as temporary:
            save_file(tensors, temporary, told)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be written ({error}); what was there before is untouched") from error


def read_metadata(path: Path) -> dict[str, str]:
    """The text metadata of a boxwright checkpoint.

    Raises:
        CheckpointError: the file is missing, damaged, or not a boxwright checkpoint.
    """
    with _opened(path) as file:
        metadata: dict[str, str] = file.metadata() or {}
    metadata.pop(CHECKSUM, None)  # `read_state` looks at it
    found = metadata.get("format", "none")
    if found != FORMAT:
        newer = found.startswith("boxwright/")
        advice = "update boxwright" if newer else "`boxwright import` reads checkpoints of other code bases"
        raise CheckpointError(f"{path}: expected a checkpoint of format {FORMAT}, got {found}; {advice}")
    return metadata


def read_state(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, on the CPU.

    Raises:
        CheckpointError: the file is missing, damaged, or not safetensors.
    """
    with _opened(path) as file:
        wanted = (file.metadata() or {}).get(CHECKSUM)
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    found = _checksum(state) if wanted is not None else None
    if found != wanted:
        raise CheckpointError(
            f"{path}: the tensors were changed after they were written (checksum {found}, expected {wanted}); the file "
            "is damaged, use another checkpoint"
        )
    return state


def _checksum(state: Mapping[str, Tensor]) -> str:
    """CRC-32 of the bytes of all tensors by name: finds damage, proves nothing about who wrote them."""
    value = 0
    for name in sorted(state):
        value = zlib.crc32(
            state[name].contiguous().flatten().view(torch.uint8).numpy().data, zlib.crc32(name.encode(), value)
        )
    return f"{value:08x}"


def load_weights(
    model: nn.Module, path: Path, *, strict: bool = True, names: Sequence[str] | None = None
) -> LoadReport:
    """Copies the tensors of a file into a model and says what happened to each.

    Strict: all or nothing. Otherwise tensors that agree in name and shape are taken, and where `names` (the model's
    class names) and the file's metadata both name classes, class rows of the head move to the class of the same name.

    Raises:
        CheckpointError: the file cannot be read; strict and something does not fit; not strict and nothing fits. The
            model is unchanged then.
    """
    state, own = read_state(path), model.state_dict()
    _keep_constants(model, path, state, own, strict)
    rows = {} if strict or names is None else _class_rows(model, path, names, state, own)
    fitting = [name for name in own if name in state and name not in rows and state[name].shape == own[name].shape]
    report = LoadReport(
        matched=tuple(fitting),
        missing=tuple(name for name in own if name not in state),
        unexpected=tuple(name for name in state if name not in own),
        mismatched=tuple(
            (name, tuple(state[name].shape), tuple(own[name].shape))
            for name in own
            if name in state and name not in rows and state[name].shape != own[name].shape
        ),
        remapped=tuple(rows),
    )
    if strict and not report.complete:
        raise CheckpointError(f"{path}: does not fit the model; {report.summary()}\nnothing was loaded")
    if not report.matched:
        raise CheckpointError(f"{path}: no tensor fits the model; {report.summary()}\nnothing was loaded")
    with torch.no_grad():
        for name in fitting:
            own[name].copy_(state[name])
        for name, (to, source) in rows.items():
            own[name][to] = state[name][source].to(own[name])
    return report


def _keep_constants(
    model: nn.Module, path: Path, state: dict[str, Tensor], own: Mapping[str, Tensor], strict: bool
) -> None:
    """Puts the model's own constants into the state; strict, a file that has others is of another model."""
    for name in getattr(model, "constants", ()):
        if name not in state:
            continue
        if strict and not _agree(state[name], own[name]):
            raise CheckpointError(
                f"{path}: {name} is {state[name].tolist()}, the model's config gives {own[name].tolist()}; build the "
                "model with what the file was made with; nothing was loaded"
            )
        state[name] = own[name].detach().cpu().clone()


def _class_rows(
    model: nn.Module, path: Path, names: Sequence[str], state: Mapping[str, Tensor], own: Mapping[str, Tensor]
) -> dict[str, tuple[list[int], list[int]]]:
    """For each tensor whose rows are classes: rows of the model, and the rows of the file with the same class names."""
    theirs = _file_names(path)
    if theirs is None or list(theirs) == list(names):
        return {}
    source_of = {_plain(name): row for row, name in enumerate(theirs)}
    pairs = [(row, source_of[_plain(name)]) for row, name in enumerate(names) if _plain(name) in source_of]
    layouts: Mapping[str, ClassLayout] = getattr(model, "class_rows", {})
    return {
        key: (
            layout.rows([row for row, _ in pairs], len(names)),
            layout.rows([row for _, row in pairs], len(theirs)),
        )
        for key, layout in layouts.items()
        if key in state
        and state[key].shape[1:] == own[key].shape[1:]
        and (state[key].shape[0], own[key].shape[0]) == (layout.size(len(theirs)), layout.size(len(names)))
    }


def _file_names(path: Path) -> list[str] | None:
    with _opened(path) as file:
        text = (file.metadata() or {}).get("names")
    try:
        names = None if text is None else json.loads(text)
    except json.JSONDecodeError:
        names = None
    return [str(name) for name in names] if isinstance(names, list) else None


def _agree(one: Tensor, other: Tensor) -> bool:
    """Equal but for the rounding of half precision."""
    return one.shape == other.shape and torch.allclose(one.float().cpu(), other.float().cpu(), rtol=1e-3)


def _plain(name: str) -> str:
    return name.strip().casefold()


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; expected a .safetensors checkpoint")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        with path.open("rb") as raw:
            start = raw.read(2)
        if start in (b"PK", b"\x80\x02"):  # zip of torch.save, or a bare pickle
            reason = (
                "this is a pickle (.pt, .pth), which can run code when opened; boxwright reads safetensors only, which "
                "`boxwright import` makes of it without running anything"
            )
        else:
            reason = f"not a whole safetensors file ({error}); it may be damaged or cut short, use another checkpoint"
        raise CheckpointError(f"{path}: {reason}") from error


def _sides(shape: Shape) -> str:
    return "x".join(map(str, shape)) or "scalar"
