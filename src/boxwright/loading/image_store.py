# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Pixels of a split by index: decoded on demand, or kept in shared memory or on disk within a stated limit."""

import hashlib
import math
import mmap
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8

from boxwright.config import to_yaml
from boxwright.datasets.cache import fingerprint, usable_cache_folder, write_atomically
from boxwright.datasets.images import image_size, read_image
from boxwright.datasets.policy import DataConfig, Fit
from boxwright.datasets.sample import Records
from boxwright.errors import DataError

_GB = 1e9
_SHARE = 0.9  # of the free memory or disk; the rest is for everything else
CROP_MARGIN = 1.42  # short side over imgsz where the middle is cropped: a crop of half the area is still not enlarged
Progress = Callable[[int, int], None]


class ImageStore:
    """Images of one split; safe to use from forked and spawned workers.

    With `cache = "ram"` or `"disk"` the constructor fills the cache. The limit counts per process; images that do not
    fit, always those with the highest indices, are decoded each time. `messages` says how many that are.
    """

    def __init__(self, records: Records, config: DataConfig, on_progress: Progress | None = None) -> None:
        self._paths = tuple(str(record.image) for record in records.records)
        self._sizes = tuple(record.size for record in records.records)
        self._imgsz, self._fit, self._policy = config.imgsz, config.fit, config.image
        self._cache: _SharedBlock | _Disk | None = None
        self.messages: tuple[str, ...] = ()
        if config.cache != "none" and self._paths:
            self._open_cache(records, config, on_progress)

    def __len__(self) -> int:
        return len(self._paths)

    def size(self, index: int) -> tuple[int, int]:
        """(height, width) px of `image(index)`, without reading it."""
        return self._sizes[index]

    def resized_size(self, index: int) -> tuple[int, int]:
        """(height, width) px of `resized(index)`, without reading it."""
        return resized_size(self._sizes[index], self._imgsz, self._fit)

    def image(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """RGB pixels in the size of the file.

        Raises:
            DataError: the file was damaged, changed or removed after it was checked.
        """
        return self._read(index, None)

    def resized(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """RGB pixels resized as `DataConfig.fit` wants. Treat as read-only: it may be the cache itself.

        Sides are those of `resized_size`. Bilinear; shrinking to less than half averages over the area (for a JPEG, in
        its decoder), because plain bilinear would skip pixels.

        Raises:
            DataError: the file was damaged, changed or removed after it was checked.

        Source: spec/architectures 6.1. Deviation: the averaging below one half.
        """
        pixels = None if self._cache is None else self._cache.get(index)
        if pixels is None:
            pixels = self._resize(index)
            if isinstance(self._cache, _Disk):
                self._cache.put(index, pixels)
        return pixels

    def _read(self, index: int, min_long_side: int | None) -> np.ndarray:
        path = Path(self._paths[index])
        pixels = read_image(path, self._policy, min_long_side)
        height, width = self._sizes[index]
        factors = (1,) if min_long_side is None else (1, 2, 4, 8)
        if pixels.shape[:2] not in [(-(-height // factor), -(-width // factor)) for factor in factors]:
            now = image_size(path)
            raise DataError(
                f"{path}: was {width} x {height} px when it was checked, is {now[1]} x {now[0]} now; start again"
            )
        return pixels

    def _resize(self, index: int) -> np.ndarray:
        target = self.resized_size(index)
        pixels = self._read(index, max(target))
        if pixels.shape[:2] == target:
            return pixels
        shrinking = max(pixels.shape[:2]) > 2 * max(target)
        method = cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
        return np.asarray(cv2.resize(pixels, (target[1], target[0]), interpolation=method))

    # -- caching ---------------------------------------------------------------------------------------------------

    def _open_cache(self, records: Records, config: DataConfig, on_progress: Progress | None) -> None:
        where, limit = ("memory", _free_memory()) if config.cache == "ram" else ("disk", None)
        folder = None
        if config.cache == "disk":
            identity = f"{records.header.source.resolve()}|{records.split}|{config.imgsz}|{to_yaml(config.image)}"
            identity += "" if config.fit == "letterbox" else f"|{config.fit}"
            digest = hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:32]
            folder = usable_cache_folder(f"images/{digest}", records.header.root)
            limit = None if folder is None else _free_disk(folder)
            if folder is None or limit is None:
                self.messages = ("images are not cached: the cache folder cannot be written",)
                return
        budget = config.cache_limit_gb * _GB
        budget = budget if limit is None else min(budget, limit)
        shapes = [(*resized_size(size, self._imgsz, self._fit), 3) for size in self._sizes]
        ends = np.cumsum([math.prod(shape) for shape in shapes])
        count = int(np.searchsorted(ends, budget, side="right"))
        used = float(ends[count - 1]) / _GB if count else 0.0
        if count:
            chosen = shapes[:count]
            self._cache = _SharedBlock(chosen) if folder is None else _Disk(folder, self._paths[:count], chosen)
            self._fill(count, on_progress)
        text = f"{records.split}: {count} of {len(self)} images cached ({where}, {used:.2f} of {budget / _GB:.2f} GB)"
        if count < len(self):
            text += f"; {len(self) - count} do not fit and are decoded each time"
        self.messages = (text,)

    def _fill(self, count: int, on_progress: Progress | None) -> None:
        cache = self._cache

        def work(index: int) -> None:
            if isinstance(cache, _Disk):
                if not cache.has(index):
                    cache.put(index, self._resize(index))
            elif cache is not None:
                cache.put(index, self._resize(index))

        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            for done, _ in enumerate(pool.map(work, range(count)), 1):
                if on_progress is not None:
                    on_progress(done, count)


def resized_size(size: tuple[int, int], imgsz: int, fit: Fit = "letterbox") -> tuple[int, int]:
    """(height, width) px that an image of `size` is kept in, before it is placed in the network input.

    The long side at `imgsz` to letterbox, both sides to stretch; to crop, the short side at `CROP_MARGIN` times that,
    never enlarged.

    >>> resized_size((427, 640), 320), resized_size((427, 640), 320, "stretch"), resized_size((427, 640), 200, "crop")
    ((214, 320), (320, 320), (284, 426))
    """
    if fit == "stretch":
        return imgsz, imgsz
    if fit == "crop":
        ratio = min(math.ceil(CROP_MARGIN * imgsz) / min(size), 1.0)
        height, width = (min(math.ceil(side * ratio), side) for side in size)
        return height, width
    ratio = imgsz / max(size)
    height, width = (min(math.ceil(side * ratio), imgsz) for side in size)
    return height, width


class _SharedBlock:
    """Images in one block of shared memory without a name: forked workers inherit it, spawned ones attach to it."""

    def __init__(self, shapes: list[tuple[int, int, int]]) -> None:
        self._shapes = shapes
        self._offsets = _offsets(shapes)
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("boxwright-images")
            self._reopen = f"/proc/{os.getpid()}/fd/{descriptor}"
            weakref.finalize(self, os.close, descriptor)
        else:
            descriptor, self._reopen = tempfile.mkstemp(prefix="boxwright-images-")
            weakref.finalize(self, _remove, descriptor, self._reopen)
        os.truncate(descriptor, self._offsets[-1])
        self._block: mmap.mmap | None = mmap.mmap(descriptor, self._offsets[-1])

    def __getstate__(self) -> dict[str, Any]:
        return {"_shapes": self._shapes, "_offsets": self._offsets, "_reopen": self._reopen}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        try:
            with Path(self._reopen).open("rb") as file:
                self._block = mmap.mmap(file.fileno(), self._offsets[-1], access=mmap.ACCESS_READ)
        except (OSError, ValueError):
            self._block = None  # not on this machine, or its owner has ended: decode instead

    def _view(self, index: int) -> np.ndarray:
        assert self._block is not None
        shape, start = self._shapes[index], self._offsets[index]
        return np.frombuffer(self._block, np.uint8, math.prod(shape), start).reshape(shape)

    def put(self, index: int, pixels: np.ndarray) -> None:
        np.copyto(self._view(index), pixels)

    def get(self, index: int) -> np.ndarray | None:
        if self._block is None or index >= len(self._shapes):
            return None
        view = self._view(index)
        view.flags.writeable = False
        return view


class _Disk:
    """Images as .npy files in the cache folder, named after path, size and modification time of their source."""

    def __init__(self, folder: Path, paths: tuple[str, ...], shapes: list[tuple[int, int, int]]) -> None:
        self._shapes = shapes
        self._files = [folder / _file_name(path) for path in paths]
        self._sizes = [math.prod(shape) + len(_npy_header(shape)) for shape in shapes]
        wanted = {file.name for file in self._files}
        for file in folder.glob("*.npy"):  # our own folder: images that changed or are not used any more
            if file.name not in wanted:
                file.unlink(missing_ok=True)

    def has(self, index: int) -> bool:
        """Whether a whole file is there; writing is atomic, so its size tells."""
        try:
            return self._files[index].stat().st_size == self._sizes[index]
        except OSError:
            return False

    def put(self, index: int, pixels: np.ndarray) -> None:
        if index < len(self._files):
            shape = self._shapes[index]
            content = _npy_header(shape) + np.ascontiguousarray(pixels).tobytes()
            write_atomically(self._files[index], lambda file: _put(file, content))

    def get(self, index: int) -> np.ndarray | None:
        if index >= len(self._files):
            return None
        try:
            pixels = np.load(self._files[index], allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        return pixels if pixels.shape == self._shapes[index] and pixels.dtype == np.uint8 else None


def _offsets(shapes: list[tuple[int, int, int]]) -> list[int]:
    return [0, *np.cumsum([math.prod(shape) for shape in shapes]).tolist()]


def _remove(descriptor: int, name: str) -> None:
    os.close(descriptor)
    Path(name).unlink(missing_ok=True)


def _put(file: Any, content: bytes) -> None:
    file.write(content)


def _npy_header(shape: tuple[int, int, int]) -> bytes:
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}"
    padded = text.ljust(117) + "\n"  # 10 bytes before it: 128 in all, as the format wants
    return b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded.encode()


def _file_name(path: str) -> str:
    return hashlib.sha256(repr(fingerprint(Path(path))).encode()).hexdigest()[:32] + ".npy"


def _free_memory() -> float | None:
    """Bytes that may be used, where the system says so."""
    limits = []
    try:
        text = Path("/proc/meminfo").read_text()
        limits.append(int(text.split("MemAvailable:")[1].split()[0]) * 1024)
        group = Path("/sys/fs/cgroup")
        limits.append(int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    except (OSError, ValueError, IndexError):
        pass
    return _SHARE * max(min(limits), 0) if limits else None


def _free_disk(folder: Path) -> float | None:
    """Bytes that may be used, counting what the folder holds already; None where it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = sum(file.stat().st_size for file in folder.glob("*.npy"))
        return held + _SHARE * shutil.disk_usage(folder).free if os.access(folder, os.W_OK) else None
    except OSError:
        return None
