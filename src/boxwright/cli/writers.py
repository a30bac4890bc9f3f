# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Result files of `boxwright predict`: pictures, YOLO text, JSON, COCO results, Parquet."""

import importlib.util
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from boxwright import viz
from boxwright.datasets.formats.shapes import join_parts, mask_outlines
from boxwright.errors import ConfigError, DataError
from boxwright.results import Classification, Detections

Found = Detections | Classification
BEST = 5  # classes of an image that are written


class Writer(Protocol):
    """One kind of file in the folder of a prediction."""

    def add(self, name: str, image: np.ndarray, found: Found) -> None:
        """Takes one image (RGB) and what was found; `name` is its own among all."""
        ...

    def close(self) -> None:
        """Writes what waits for the last image."""
        ...


class DrawnPictures:
    """`pictures/NAME.jpg`, drawn."""

    def __init__(self, folder: Path) -> None:
        self.folder = _made(folder / "pictures")

    def add(self, name: str, image: np.ndarray, found: Found) -> None:
        """Draws and writes one picture."""
        picture = self.folder / f"{name}.jpg"
        if not cv2.imwrite(str(picture), cv2.cvtColor(viz.draw(image, found), cv2.COLOR_RGB2BGR)):
            raise DataError(f"{picture}: cannot be written")

    def close(self) -> None:
        """Nothing waits."""


class YoloText:
    """`labels/NAME.txt`: YOLO rows with the score last."""

    def __init__(self, folder: Path) -> None:
        self.folder = _made(folder / "labels")

    def add(self, name: str, image: np.ndarray, found: Found) -> None:
        """Writes one file."""
        (self.folder / f"{name}.txt").write_text(yolo_rows(found), encoding="utf-8")

    def close(self) -> None:
        """Nothing waits."""


class Json:
    """`detections.json`: everything, image by image."""

    def __init__(self, folder: Path) -> None:
        self.file = _made(folder) / "detections.json"
        self.rows: list[dict[str, Any]] = []

    def add(self, name: str, image: np.ndarray, found: Found) -> None:
        """Notes one image."""
        height, width = found.image_size
        key = "detections" if isinstance(found, Detections) else "classes"
        self.rows.append({"path": found.path, "width": width, "height": height, key: found.to_dicts()})

    def close(self) -> None:
        """Writes the file."""
        self.file.write_text(json.dumps(self.rows, indent=1, ensure_ascii=False), encoding="utf-8")


class CocoResults:
    """`coco_results.json`: the list that COCO evaluators load.

    The image id is the number that the file is named by ("000000000139.jpg" is 139), else the name of the file.
    """

    def __init__(self, folder: Path) -> None:
        self.file = _made(folder) / "coco_results.json"
        self.rows: list[dict[str, Any]] = []

    def add(self, name: str, image: np.ndarray, found: Found) -> None:
        """Notes one image."""
        if not isinstance(found, Detections):
            raise ConfigError("--format coco: COCO results hold objects, got a classification; use json or parquet")
        file = Path(found.path or name)
        self.rows += found.to_coco(int(file.stem) if file.stem.isdecimal() else file.name)

    def close(self) -> None:
        """Writes the file."""
        self.file.write_text(json.dumps(self.rows), encoding="utf-8")


class Parquet:
    """`detections.parquet`: one row per object, or per image one row for each of its best classes."""

    def __init__(self, folder: Path) -> None:
        import pyarrow
        import pyarrow.parquet

        self.arrow = pyarrow
        self.file = _made(folder) / "detections.parquet"
        self.rows: list[dict[str, Any]] = []
        self.columns: dict[str, Any] = {}

    def add(self, name: str, image: np.ndarray, found: Found) -> None:
        """Notes one image."""
        self.columns = self.columns or _arrow_columns(self.arrow, found)
        self.rows += table_rows(found)

    def close(self) -> None:
        """Writes the file; without an image it has the columns that every file has."""
        schema = self.arrow.schema(list((self.columns or _first_columns(self.arrow)).items()))
        self.arrow.parquet.write_table(self.arrow.Table.from_pylist(self.rows, schema=schema), self.file)


FORMATS: Mapping[str, Callable[[Path], Writer]] = {
    "pictures": DrawnPictures,
    "yolo": YoloText,
    "json": Json,
    "coco": CocoResults,
    "parquet": Parquet,
}
NEEDS: Mapping[str, str] = {"parquet": "pyarrow"}  # packages of an extra called like the format
USUAL = ("pictures", "yolo", "json")  # what --save writes


class ResultFolder:
    """A folder with the wanted kinds of files.

    Raises:
        ConfigError: an unknown kind, or one that needs a package that is not installed.
        DataError: the folder cannot be made.
    """

    def __init__(self, folder: Path, formats: Sequence[str] = USUAL) -> None:
        for name in formats:
            if name not in FORMATS:
                raise ConfigError(f"--format: expected one of {', '.join(FORMATS)}, got '{name}'")
            package = NEEDS.get(name)
            if package is not None and not _installed(package):
                raise ConfigError(
                    f"--format {name}: needs the package {package}, which is not installed; install it with: "
                    f"pip install 'boxwright[{name}]'"
                )
        self.folder = folder
        self.names: set[str] = set()
        self.writers = [FORMATS[name](folder) for name in dict.fromkeys(formats)]

    def add(self, image: np.ndarray, found: Found) -> None:
        """Writes or notes one image (RGB) and what was found in it."""
        name = self._name(found.path)
        for writer in self.writers:
            writer.add(name, image, found)

    def close(self) -> None:
        """Writes the files of all images together."""
        for writer in self.writers:
            writer.close()

    def _name(self, path: str | None) -> str:
        """A file name of its own for every image, also where two folders hold the same one."""
        file = Path(path or "image")
        stem = file.stem if "#" not in file.suffix else file.name.replace("#", "-")
        name, number = stem, 1
        while name in self.names:
            number += 1
            name = f"{stem}-{number}"
        self.names.add(name)
        return name


def yolo_rows(found: Found) -> str:
    """One line per object: class id, fractions of the image, score.

    The fractions are the centre, width and height of the box; of masks the outline (its parts joined), of oriented
    boxes the four corners; keypoints follow the box as x, y and visibility. Of whole images: class id and score of the
    best classes.
    """
    return "".join(
        f"{number} " + " ".join(f"{value:.6f}" for value in values) + "\n" for number, values in _rows(found)
    )


def _rows(found: Found) -> Iterator[tuple[int, list[float]]]:
    if isinstance(found, Classification):
        yield from ((row["class_id"], [row["score"]]) for row in found.to_dicts()[:BEST])
        return
    ids = found.class_ids or tuple(range(len(found.names)))
    for row, (label, score) in enumerate(zip(found.labels.tolist(), found.scores.tolist(), strict=True)):
        yield ids[label], [*_places(found, row), score]


def _places(found: Detections, row: int) -> list[float]:
    height, width = found.image_size
    size = np.array((width, height), np.float64)
    if found.masks is not None:
        mask = found.masks[row]
        path = join_parts(mask_outlines(mask.pixels)) + np.array((mask.left, mask.top), np.float64)
        return (path / size).reshape(-1).tolist()
    if found.boxes.shape[1] == 5:
        return (found.corners[row].double().numpy() / size).reshape(-1).tolist()
    x1, y1, x2, y2 = found.boxes[row].tolist()
    values = [(x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height]
    for x, y, visibility in [] if found.keypoints is None else found.keypoints[row].tolist():
        values += [x / width, y / height, visibility]
    return values


def table_rows(found: Found) -> list[dict[str, Any]]:
    """Flat rows of one image, for tables."""
    height, width = found.image_size
    about = {"path": found.path, "width": width, "height": height}
    if isinstance(found, Classification):
        return [about | row for row in found.to_dicts()[:BEST]]
    rows = []
    for row in found.to_dicts():
        made = about | {name: row[name] for name in ("name", "label", "class_id", "score")}
        made |= dict(zip(("x1", "y1", "x2", "y2"), row["box"], strict=True))
        if "oriented_box" in row:
            made |= dict(zip(("cx", "cy", "w", "h", "theta"), row["oriented_box"], strict=True))
        if "mask" in row:
            made["mask"] = row["mask"]["counts"]
        if "keypoints" in row:
            made["keypoints"] = [value for point in row["keypoints"] for value in point]
        for name, told in row.get("attributes", {}).items():
            value = told["value"]
            made[f"attribute_{name}"] = "|".join(value) if isinstance(value, list) else value
        rows.append(made)
    return rows


def _first_columns(arrow: Any) -> dict[str, Any]:
    text, number, real = arrow.string(), arrow.int64(), arrow.float64()
    kinds = {"path": text, "width": number, "height": number, "name": text, "label": number, "class_id": number}
    return kinds | {"score": real}


def _arrow_columns(arrow: Any, found: Found) -> dict[str, Any]:
    """Columns by what the model says, so that a file without a single object has them too."""
    columns, real = _first_columns(arrow), arrow.float64()
    if isinstance(found, Classification):
        return columns
    columns |= dict.fromkeys(("x1", "y1", "x2", "y2"), real)
    if found.boxes.shape[1] == 5:
        columns |= dict.fromkeys(("cx", "cy", "w", "h", "theta"), real)
    if found.masks is not None:
        columns["mask"] = arrow.string()
    if found.keypoints is not None:
        columns["keypoints"] = arrow.list_(real)
    return columns | {f"attribute_{spec.name}": arrow.string() for spec in found.attribute_specs}


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be made: {error.strerror}") from None
    return folder
