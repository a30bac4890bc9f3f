# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Files of `torch.save` as tensors and plain values, read without running anything that is in them.

Both forms: the zip archive (torch 1.6 and later) and the plain stream before it. Numbers in the file are checked
against what the file holds before any memory is taken for them.
"""

import re
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from io import BufferedIOBase, BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from boxwright.errors import CheckpointError
from boxwright.foreign.machine import DamagedError, Name, Reader, RefusedError

RECORD_PACKAGES = ("ultralytics", "models", "utils", "yolov5", "torch.nn.modules")
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # opens the files of torch before 1.6
LEGACY_VERSION = 1001
MOST_PICKLE = 256 * 2**20  # bytes of structure; the tensors lie beside it
_KEY = re.compile(r"[A-Za-z0-9_]{1,64}")

_STORAGES: dict[str, torch.dtype] = {
    "torch.FloatStorage": torch.float32,
    "torch.DoubleStorage": torch.float64,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}
_DTYPES = {
    f"torch.{name}": getattr(torch, name)
    for name in ("float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
}


@dataclass(frozen=True, slots=True, eq=False)
class Storage:
    """A flat run of numbers of the file."""

    values: Tensor


def read_torch_file(path: Path) -> Any:
    """What a file of `torch.save` holds: tensors on the CPU, plain values, and `ForeignObject`s for objects of models.

    Raises:
        CheckpointError: the file is missing, damaged, cut short, or asks for anything else, which the message names.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; expected a checkpoint (.pt, .pth or .safetensors)")
    try:
        with path.open("rb") as file:
            start = file.read(4)
            file.seek(0)
            if start == b"PK\x03\x04":
                return _read_zip(file)
            if start[:1] == b"\x80":
                return _read_stream(file, path.stat().st_size)
    except RefusedError as error:
        raise CheckpointError(
            f"{path}: asks for {error}, which is neither a tensor nor a plain container; refused, nothing in it was run"
        ) from None
    except (DamagedError, zipfile.BadZipFile, EOFError, OSError, ValueError, KeyError, struct.error) as error:
        raise CheckpointError(f"{path}: damaged or cut short ({error}); fetch or copy it again") from error
    raise CheckpointError(f"{path}: not a checkpoint of torch; expected a zip archive or a pickle, got {start!r}")


def _read_zip(file: BufferedIOBase) -> Any:
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        for name, entry in entries.items():
            _check_entry(name, entry)
        if any(name.endswith("constants.pkl") for name in entries):
            raise RefusedError("code (this is a TorchScript archive)")
        roots = [name[: -len("data.pkl")] for name in entries if name.endswith("data.pkl") and name.count("/") <= 1]
        if len(roots) != 1:
            raise DamagedError(f"expected one data.pkl, got {len(roots)}")
        root = roots[0]
        if f"{root}byteorder" in entries and archive.read(f"{root}byteorder").strip() != b"little":
            raise RefusedError("big-endian numbers")
        if entries[f"{root}data.pkl"].file_size > MOST_PICKLE:
            raise DamagedError(f"a structure of more than {MOST_PICKLE} bytes")

        def load(key: str, dtype: torch.dtype, count: int) -> Tensor:
            name = f"{root}data/{key}"
            if name not in entries:
                raise DamagedError(f"the numbers {key} are missing")
            if entries[name].file_size != count * dtype.itemsize:
                raise DamagedError(
                    f"the numbers {key}: expected {count * dtype.itemsize} bytes, got {entries[name].file_size}"
                )
            return _from_bytes(bytearray(archive.read(name)), dtype)

        return _reader(_Storages(load)).read(BytesIO(archive.read(f"{root}data.pkl")))


def _check_entry(name: str, entry: zipfile.ZipInfo) -> None:
    if name.startswith("/") or "\\" in name or ".." in name.split("/"):
        raise RefusedError(f"a place outside itself, '{name}'")
    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
        raise RefusedError(f"'{name}' in compressed or encrypted form, which torch never writes")


def _read_stream(file: BufferedIOBase, size: int) -> Any:
    """The form before torch 1.6: three small pickles, the structure, the order of the storages, then their numbers."""
    plain = Reader()
    if plain.read(file) != LEGACY_MAGIC:
        raise RefusedError("a bare pickle (no file of torch.save)")
    version, system = plain.read(file), plain.read(file)
    if version != LEGACY_VERSION or not isinstance(system, dict) or system.get("little_endian") is not True:
        raise DamagedError(f"an unknown form: version {version}")
    waiting: dict[str, bytearray] = {}

    def load(key: str, dtype: torch.dtype, count: int) -> Tensor:
        if sum(map(len, waiting.values())) + count * dtype.itemsize > size:
            raise DamagedError(f"the numbers {key} are more than the file holds")
        waiting[key] = bytearray(count * dtype.itemsize)
        return _from_bytes(waiting[key], dtype)

    storages = _Storages(load)
    found = _reader(storages).read(file)
    order = plain.read(file)
    if not isinstance(order, list) or set(order) != set(waiting):
        raise DamagedError("its list of numbers does not fit its structure")
    for key in order:
        count, whole = int.from_bytes(file.read(8), "little"), waiting[key]
        if count != storages.kept[key].values.numel():
            raise DamagedError(f"the numbers {key}: expected {storages.kept[key].values.numel()}, got {count}")
        if file.readinto(whole) != len(whole):
            raise DamagedError("it ends in the middle of the numbers")
    return found


@dataclass
class _Storages:
    """The storages of one file by key, each made once: several tensors may share one."""

    load: Callable[[str, torch.dtype, int], Tensor]
    kept: dict[str, Storage] = field(default_factory=dict)

    def __call__(self, asked: Any) -> Any:
        if not isinstance(asked, tuple) or len(asked) < 5 or asked[0] != "storage":
            raise RefusedError(f"something outside itself, {_short(asked)}")
        _, dtype, key, _, count = asked[:5]
        if not isinstance(dtype, torch.dtype) or not isinstance(key, str) or not _KEY.fullmatch(key):
            raise RefusedError(f"something outside itself, {_short(asked)}")
        if len(asked) > 5 and asked[5] is not None:
            raise RefusedError("a view of a storage, which torch stopped writing in 2017")
        if type(count) is not int or count < 0:
            raise DamagedError(f"the numbers {key}: a count of {count}")
        if key not in self.kept:
            self.kept[key] = Storage(self.load(key, dtype, count))
        values = self.kept[key].values
        if values.dtype != dtype or values.numel() != count:
            raise DamagedError(f"the numbers {key} are asked for in two forms")
        return self.kept[key]


def _reader(storages: _Storages) -> Reader:
    functions: Mapping[str, Callable[..., Any]] = {
        "torch._utils._rebuild_tensor_v2": _tensor,
        "torch._utils._rebuild_tensor": _tensor,
        "torch._utils._rebuild_parameter": _parameter,
        "torch.nn.parameter.Parameter": _parameter,
        "torch.Size": _sides,
        "torch.device": _device,
        "collections.OrderedDict": _ordered,
        "__builtin__.set": partial(_set, set),
        "builtins.set": partial(_set, set),
        "_codecs.encode": _bytes,
        "__builtin__.getattr": _method,
        "builtins.getattr": _method,
    }
    return Reader(functions, {**_STORAGES, **_DTYPES}, RECORD_PACKAGES, storages)


def _tensor(storage: Any, offset: int, shape: Any, strides: Any, *_: Any) -> Tensor:
    if not isinstance(storage, Storage):
        raise DamagedError("a tensor without numbers")
    sides, steps = _integers(shape), _integers(strides)
    (start,) = _integers((offset,))
    last = start + sum((side - 1) * step for side, step in zip(sides, steps, strict=True))
    held = storage.values.numel()
    if 0 not in sides and last >= held:
        raise DamagedError(f"a tensor of shape {sides} in a storage of {held} numbers")
    return storage.values.as_strided(sides, steps, start)


def _parameter(data: Any, *_: Any) -> Tensor:
    if not isinstance(data, Tensor):
        raise DamagedError("a parameter without a tensor")
    return data


def _sides(values: Any = ()) -> tuple[int, ...]:
    return _integers(values)


def _device(kind: Any, *_: Any) -> str:
    return _text(kind)


def _ordered(entries: Any = ()) -> "OrderedDict[str, Any]":
    made: OrderedDict[str, Any] = OrderedDict()
    for pair in entries:
        key, value = pair
        made[_text(key)] = value
    return made


def _set(kind: type, entries: Any = ()) -> Any:
    if not all(isinstance(entry, str | int | float | bytes) for entry in entries):
        raise DamagedError("a set of something else than plain values")
    return kind(entries)


def _bytes(text: Any, encoding: Any = "latin1") -> bytes:
    return _text(text).encode("latin1" if _text(encoding) in ("latin1", "latin-1") else "utf-8")


def _method(owner: Any, name: Any) -> Name:
    """A method that an object of a model keeps (YOLOv5's segment head does): its name, which nothing can call."""
    if not isinstance(owner, Name) or owner.known is not None:
        raise RefusedError(f"the attribute {_short(name)} of a {type(owner).__name__}")
    return Name(f"{owner.path}.{_text(name)}")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise DamagedError(f"a {type(value).__name__} where text belongs")
    return value


def _integers(values: Any) -> tuple[int, ...]:
    if not isinstance(values, tuple | list) or len(values) > 16:
        raise DamagedError("a shape that is none")
    if any(type(value) is not int or not 0 <= value < 2**62 for value in values):
        raise DamagedError(f"a shape of {_short(values)}")
    return tuple(values)


def _from_bytes(raw: bytearray, dtype: torch.dtype) -> Tensor:
    return torch.frombuffer(raw, dtype=dtype) if raw else torch.empty(0, dtype=dtype)


def _short(value: Any) -> str:
    """A few words about a value of the file; nothing deep is walked through."""
    parts = value if isinstance(value, tuple | list) else (value,)
    return ", ".join(repr(p)[:40] if isinstance(p, str | int | float | bytes) else type(p).__name__ for p in parts[:6])
