# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Where images come from: files, folders, glob patterns, videos, arrays, and lists of these, one frame at a time."""

import glob
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8

from boxwright.datasets.formats.listing import IMAGE_SUFFIXES
from boxwright.datasets.images import read_image
from boxwright.errors import DataError, ShapeError

VIDEO_SUFFIXES = frozenset((".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv"))


@dataclass(frozen=True, slots=True)
class Frame:
    """One image to look at."""

    image: UInt8[np.ndarray, "h w 3"]  # RGB
    path: str | None = None  # file it came from; "clip.mp4#12" for frame 12 of a video, counted from 0


class Sources:
    """Frames of a source, read as they are asked for, so a long video never lies in memory.

    A source is a file (image or video), a folder (its own images and videos, by name), a glob pattern
    ("shots/**/*.jpg"), an array of RGB pixels (height, width, 3) uint8, a PIL image, or a list of these. A file that
    cannot be read is an error when it was named itself; one met in a folder or pattern is reported to `on_problem`,
    counted and left out.

    Raises:
        DataError: nothing is there, or it is neither an image nor a video.
        ShapeError: an array is not RGB uint8.
    """

    def __init__(self, source: Any, on_problem: Callable[[str], None] | None = None) -> None:
        self.skipped = 0
        self.frames_read = 0
        self._on_problem = on_problem or (lambda text: None)
        self._items = _expand(source)

    @property
    def total(self) -> int | None:
        """Number of frames, None when a video makes it unknown until it was read."""
        return None if any(item.video for item in self._items) else len(self._items)

    def __iter__(self) -> Iterator[Frame]:
        for item in self._items:
            try:
                for frame in _frames(item, self._on_problem):
                    self.frames_read += 1
                    yield frame
            except DataError as error:
                if item.named:
                    raise
                self._skip(str(error))
        if not self.frames_read and self.skipped:
            raise DataError(f"{self.skipped} files were found and none could be read; the warnings name each of them")

    def _skip(self, text: str) -> None:
        self.skipped += 1
        self._on_problem(f"{text}; left out")


@dataclass(frozen=True, slots=True)
class _SourceItem:
    path: Path | None = None
    array: Any = None
    named: bool = True  # the user named this very file

    @property
    def video(self) -> bool:
        return self.path is not None and self.path.suffix.lower() in VIDEO_SUFFIXES


def _expand(source: Any) -> list[_SourceItem]:
    if isinstance(source, str | Path):
        return _expand_path(source)
    if isinstance(source, np.ndarray):
        return [_SourceItem(array=_checked(source))]
    if hasattr(source, "getbands") and hasattr(source, "convert"):  # a PIL image, without importing PIL
        return [_SourceItem(array=_checked(np.asarray(source.convert("RGB"))))]
    if isinstance(source, Sequence):
        return [item for part in source for item in _expand(part)]
    raise DataError(
        "source: expected a path, a glob pattern, an RGB array, a PIL image or a list of these, "
        f"got {type(source).__name__}"
    )


def _expand_path(source: str | Path) -> list[_SourceItem]:
    text, path = str(source), Path(source).expanduser()
    if "://" in text:
        raise DataError(f"{text}: addresses are not read, boxwright makes no network calls; download the file first")
    if path.is_dir():
        found = _known(path.iterdir())
        if not found:
            raise DataError(f"{text}: no images or videos directly in this folder; for subfolders use '{text}/**/*'")
        return found
    if path.is_file():
        if path.suffix.lower() not in IMAGE_SUFFIXES | VIDEO_SUFFIXES:
            raise DataError(f"{text}: '{path.suffix}' is neither an image nor a video suffix; {_suffixes()}")
        return [_SourceItem(path=path)]
    if any(sign in text for sign in "*?["):
        found = _known(map(Path, glob.glob(str(path), recursive=True)))  # noqa: PTH207 - Path.glob refuses absolute patterns
        if not found:
            raise DataError(f"{text}: no image or video matches this pattern; {_suffixes()}")
        return found
    raise DataError(f"{text}: no such file or folder")


def _known(paths: Any) -> list[_SourceItem]:
    suffixes = IMAGE_SUFFIXES | VIDEO_SUFFIXES
    chosen = sorted(path for path in paths if path.suffix.lower() in suffixes and path.is_file())
    return [_SourceItem(path=path, named=False) for path in chosen]


def _suffixes() -> str:
    return f"known are {' '.join(sorted(IMAGE_SUFFIXES | VIDEO_SUFFIXES))}"


def _checked(array: np.ndarray) -> np.ndarray:
    if array.ndim == 2 and array.dtype == np.uint8:
        array = np.repeat(array[..., None], 3, axis=2)
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8 or not array.size:
        raise ShapeError(
            f"image array: expected RGB pixels (height, width, 3) uint8, got {array.shape} {array.dtype}; arrays read "
            "with OpenCV are BGR: reverse the last axis first"
        )
    return array


def _frames(item: _SourceItem, report: Callable[[str], None]) -> Iterator[Frame]:
    if item.path is None:
        yield Frame(item.array)
    elif item.video:
        yield from _video_frames(item.path, report)
    else:
        yield Frame(read_image(item.path), str(item.path))


def _video_frames(path: Path, report: Callable[[str], None]) -> Iterator[Frame]:
    capture = cv2.VideoCapture(str(path))
    try:
        if not capture.isOpened():
            raise DataError(f"{path}: cannot be opened as a video; the file is damaged or its codec is not known here")
        number, announced = 0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        while True:
            good, pixels = capture.read()
            if not good:
                break
            yield Frame(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), f"{path}#{number}")
            number += 1
    finally:
        capture.release()
    if not number:
        raise DataError(f"{path}: no frame of this video could be decoded")
    if number < announced:
        report(f"{path}: {number} of {announced} announced frames could be decoded; the rest is left out")
