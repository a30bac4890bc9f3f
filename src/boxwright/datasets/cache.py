# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""What was read from files, kept outside the dataset so that the next start takes a moment.

A cache can be deleted, damaged, read-only or written by two processes at once: the result of a run never depends on
it. Entries hold plain arrays and JSON (never a pickle) and are trusted only when path, size, modification time and the
version of the format all agree; everything else is read again. Source: spec/datasets case 71.
"""

import hashlib
import json
import logging
import os
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from io import BufferedIOBase
from pathlib import Path
from typing import Any, Literal

import numpy as np

from boxwright.config import to_dict
from boxwright.datasets.formats.base import Item, Labels, LabelState
from boxwright.datasets.instance_arrays import pack_instances, unpack_instances
from boxwright.datasets.policy import DataConfig
from boxwright.datasets.sample import DatasetHeader, Instances, Problem, Split

CACHE_FOLDER = "BOXWRIGHT_CACHE"  # environment variable
_VERSION = 3  # of the file's layout
# What does not change the answer of reading one image and its labels.
_NOT_IN_KEY = ("source", "imgsz", "cache", "cache_limit_gb", "strict", "allow_empty", "allow_missing", "follow_links")

_log = logging.getLogger(__name__)
Fingerprint = tuple[str, int, int, str]  # path, size, modification time in ns, content hash or ""
Key = tuple[Fingerprint, Fingerprint | None]  # of the image and of its label file


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything that reading one image and its labels gave."""

    size: tuple[int, int] | None  # (height, width) px; None when the image cannot be used
    labels: Labels
    problems: tuple[Problem, ...]  # about the image file


def cache_folder() -> Path:
    """Where caches live: BOXWRIGHT_CACHE, or the platform's folder for caches."""
    chosen = os.environ.get(CACHE_FOLDER)
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "boxwright" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "boxwright"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "boxwright"


def usable_cache_folder(name: str, dataset: Path) -> Path | None:
    """A subfolder of the cache, or None when it would lie inside the dataset."""
    folder = cache_folder() / name
    return None if folder.resolve().is_relative_to(dataset.resolve()) else folder


def write_atomically(path: Path, write: Callable[[BufferedIOBase], None]) -> bool:
    """Write a file under a temporary name and rename it; False, with a log line, where that is not possible."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except OSError as error:
        _log.info("cache not written: %s: %s", path, error)
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        return False
    return True


def fingerprint(path: Path, mode: Literal["stat", "content"] = "stat") -> Fingerprint:
    """What identifies the state of a file; size -1 where there is none."""
    try:
        facts = path.stat()
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if mode == "content" else ""
    except OSError:
        return str(path), -1, 0, ""
    return str(path), facts.st_size, facts.st_mtime_ns, digest


class ItemKeys:
    """The state of images and their label files; a label file that many images share is looked at once."""

    def __init__(self, mode: Literal["stat", "content"]) -> None:
        self._mode = mode
        self._shared: dict[Path, Fingerprint] = {}

    def __call__(self, item: Item) -> Key:
        """The key of one image."""
        if item.label is None:
            return fingerprint(item.image, self._mode), None
        if item.content is None:
            return fingerprint(item.image, self._mode), fingerprint(item.label, self._mode)
        if item.label not in self._shared:
            self._shared[item.label] = fingerprint(item.label, self._mode)
        return fingerprint(item.image, self._mode), self._shared[item.label]


class LabelCache:
    """Outcomes of one split by the state of their files."""

    def __init__(self, header: DatasetHeader, split: Split, config: DataConfig, version: int) -> None:
        policy = {name: value for name, value in to_dict(config).items() if name not in _NOT_IN_KEY}
        identity = [
            _VERSION, header.format, version, str(header.source.resolve()), split, header.names, header.class_ids,
            to_dict(header.keypoints), to_dict(header.attributes), policy,
        ]  # fmt: skip
        self._identity = json.dumps(identity)
        folder = usable_cache_folder("labels", header.root)
        digest = hashlib.sha256(self._identity.encode()).hexdigest()[:32]
        self.path = None if folder is None else folder / f"{digest}.npz"

    def load(self) -> dict[Key, Outcome]:
        """Everything kept; empty when there is nothing or when it cannot be trusted."""
        if self.path is None:
            return {}
        try:
            with self.path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                content = json.loads(archive["text"].tobytes())
                if content["identity"] != self._identity:
                    return {}
                return _unpack(content["entries"], unpack_instances(archive))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, IndexError, TypeError, EOFError, zipfile.BadZipFile) as error:
            _log.info("label cache ignored: %s: %s", self.path, error)
            return {}

    def save(self, outcomes: Mapping[Key, Outcome]) -> None:
        """Keep outcomes; does nothing where that is not possible."""
        if self.path is None:
            return
        text = json.dumps({"identity": self._identity, "entries": [_pack(*entry) for entry in outcomes.items()]})
        arrays = pack_instances([outcome.labels.instances for outcome in outcomes.values()])
        arrays["text"] = np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8)
        write_atomically(self.path, lambda file: np.savez(file, allow_pickle=False, **arrays))


def _pack(key: Key, outcome: Outcome) -> list[Any]:
    labels = outcome.labels
    return [
        key, outcome.size, labels.state, labels.image_label, labels.rows, labels.dropped, labels.fixed,
        labels.duplicates, [list(asdict(p).values()) for p in labels.problems],
        [list(asdict(p).values()) for p in outcome.problems], dict(labels.left_out),
    ]  # fmt: skip


def _unpack(entries: list[Any], instances: list[Instances]) -> dict[Key, Outcome]:
    outcomes: dict[Key, Outcome] = {}
    for entry, objects in zip(entries, instances, strict=True):
        key, size, state, image_label, rows, dropped, fixed, duplicates, label_problems, problems, left_out = entry
        known: LabelState = state
        parsed = Labels(
            objects, known, rows, dropped, fixed, duplicates, tuple(Problem(*fields) for fields in label_problems),
            image_label, {str(what): int(count) for what, count in left_out.items()},
        )  # fmt: skip
        image, label = key
        outcomes[(tuple(image), None if label is None else tuple(label))] = Outcome(
            None if size is None else (size[0], size[1]), parsed, tuple(Problem(*fields) for fields in problems)
        )
    return outcomes
