# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Tiny datasets in temporary folders."""

import hashlib
import io
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from boxwright.datasets.dataset import DataConfig, scan_split
from boxwright.datasets.formats import open_dataset
from boxwright.datasets.sample import Records, Split

GOOD_ROW = "0 0.5 0.5 0.2 0.2\n"


def picture(height: int = 40, width: int = 60, seed: int = 0) -> np.ndarray:
    """A smooth RGB picture that compresses with little loss."""
    noise = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return np.asarray(cv2.GaussianBlur(noise, (0, 0), 3))


def encoded(pixels: np.ndarray | Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    """An image file's bytes."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


class YoloSet:
    """Builds a YOLO dataset: `labels` maps image names to label text, bytes, or None for no file."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.yaml = root / "data.yaml"
        root.mkdir(parents=True, exist_ok=True)

    def write(
        self,
        labels: Mapping[str, str | bytes | None],
        *,
        val: Mapping[str, str | bytes | None] | None = None,
        names: str = "[cat, dog, traffic light]",
        extra: str = "",
    ) -> "YoloSet":
        for split, files in (("train", labels), ("val", {"v.jpg": GOOD_ROW} if val is None else val)):
            for number, (name, text) in enumerate(files.items()):
                self.image(f"{split}/{name}", encoded(picture(seed=number + 100 * (split == "val"))))
                if text is not None:
                    self.label(f"{split}/{Path(name).with_suffix('.txt')}", text)
        self.yaml.write_text(f"train: images/train\nval: images/val\nnames: {names}\n{extra}")
        return self

    def image(self, name: str, data: bytes) -> Path:
        return self._put(self.root / "images" / name, data)

    def label(self, name: str, text: str | bytes) -> Path:
        return self._put(self.root / "labels" / name, text.encode() if isinstance(text, str) else text)

    @staticmethod
    def _put(path: Path, data: bytes) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def scan(self, split: Split = "train", **choices: object) -> Records:
        return scan_split(open_dataset(self.yaml), split, DataConfig(**choices))  # type: ignore[arg-type]


@pytest.fixture
def yolo(tmp_path: Path) -> YoloSet:
    return YoloSet(tmp_path / "set")


class VocSet:
    """Builds a Pascal VOC folder; `objects` are XML texts by image id."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, train: Mapping[str, str], val: Mapping[str, str] | None = None) -> "VocSet":
        for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        for split, files in (("train", train), ("val", {"v": voc_object()} if val is None else val)):
            for number, (name, objects) in enumerate(files.items()):
                data = encoded(picture(seed=number + 100 * (split == "val")))
                (self.root / "JPEGImages" / f"{name}.jpg").write_bytes(data)
                self.annotation(name, objects)
            (self.root / "ImageSets/Main" / f"{split}.txt").write_text("".join(f"{name}\n" for name in files))
        return self

    def annotation(self, name: str, objects: str, head: str = "", size: tuple[int, int] = (60, 40)) -> None:
        width, height = size
        size_text = f"<size><width>{width}</width><height>{height}</height></size>"
        text = f"{head}<annotation>\n{size_text}\n{objects}</annotation>\n"
        (self.root / "Annotations" / f"{name}.xml").write_text(text)

    def scan(self, split: Split = "train", names: tuple[str, ...] | None = None, **choices: object) -> Records:
        return scan_split(open_dataset(self.root, names), split, DataConfig(**choices))  # type: ignore[arg-type]


def voc_object(
    box: tuple[object, object, object, object] | None = (11, 11, 30, 30), name: str | None = "cell", extra: str = ""
) -> str:
    """One object element, each on a line of its own."""
    named = "" if name is None else f"<name>{name}</name>"
    corners = ""
    if box is not None:
        tags = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
        corners = (
            "<bndbox>" + "".join(f"<{tag}>{value}</{tag}>" for tag, value in tags if value is not None) + "</bndbox>"
        )
    return f"<object>{named}{extra}{corners}</object>\n"


@pytest.fixture
def voc(tmp_path: Path) -> VocSet:
    return VocSet(tmp_path / "voc")


@pytest.fixture
def make_object() -> Callable[..., str]:
    return voc_object


@pytest.fixture
def make_picture() -> Callable[..., np.ndarray]:
    return picture


@pytest.fixture
def encode() -> Callable[..., bytes]:
    return encoded


@pytest.fixture
def tree_hash() -> Callable[[Path], str]:
    """A hash of every path, byte and modification time below a folder."""

    def digest(root: Path) -> str:
        state = hashlib.sha256()
        for folder, folders, files in sorted(os.walk(root)):
            folders.sort()
            for name in sorted(files):
                path = Path(folder) / name
                state.update(f"{path}|{path.stat().st_mtime_ns}".encode())
                state.update(path.read_bytes())
        return state.hexdigest()

    return digest
