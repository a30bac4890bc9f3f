# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""WIDER FACE: `wider_face_split/wider_face_train_bbx_gt.txt` and `WIDER_train/images/`.

Each image takes its path, the number of faces, and a row `x y w h blur expression illumination invalid occlusion
pose` for each; an image without faces still has one row of zeros. Invalid faces become ignore regions.
Source: Yang et al. 2016, arXiv:1511.06523, and the readme of its annotations.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from boxwright.datasets import codes
from boxwright.datasets.formats.base import Item, Labels, Listing
from boxwright.datasets.formats.collect import Collector, EntryError
from boxwright.datasets.formats.job import Holds
from boxwright.datasets.formats.listing import IMAGE_SUFFIXES
from boxwright.datasets.formats.objects import ReadObject, Wanted
from boxwright.datasets.formats.single_file import ImageFolders, complete, file_splits, one_name, siblings, unsafe_name
from boxwright.datasets.image_header import ImageHeader
from boxwright.datasets.policy import DataConfig
from boxwright.datasets.sample import DatasetHeader, Problem, Split
from boxwright.errors import DataError
from boxwright.vocabulary import task_with

_PATTERN = "wider_face_*_bbx_gt.txt"
_INVALID = 7  # field of a row
_MORE = ("blur", "expression", "illumination", "occlusion", "pose")  # of a row, beside the box and the invalid flag


@dataclass(frozen=True, slots=True)
class _Faces:
    """The rows of one image."""

    path: str
    rows: tuple[tuple[int, str], ...]  # line and text


@dataclass(frozen=True, slots=True)
class WiderFace:
    """Reader of WIDER FACE boxes."""

    name: str = "widerface"
    version: int = 3
    write: None = None

    @property
    def holds(self) -> Holds:
        """Nothing: it is only read."""
        return {}

    def detect(self, source: Path) -> bool:
        """A file called `wider_face_*_bbx_gt.txt`, or a folder with one."""
        return source.match(_PATTERN) if source.is_file() else bool(_files(source))

    def header(self, source: Path, names: Sequence[str] | None) -> DatasetHeader:
        """One class, face (or `names`); splits by file name.

        Raises:
            DataError: more than one name is given.
        """
        files = file_splits(_files(source)) if source.is_dir() else siblings(source)
        splits, problems = complete(files, None, source)
        chosen = one_name(names, "face", "WIDER FACE")
        root = source
        if source.is_file():
            root = source.parent.parent if source.parent.name == "wider_face_split" else source.parent
        return DatasetHeader("widerface", root, source, chosen, (0,), splits, tuple(problems), task=task_with())

    def items(self, header: DatasetHeader, split: Split, config: DataConfig) -> Listing:
        """The images that the split's file lists.

        Raises:
            DataError: the file cannot be read.
        """
        items: list[Item] = []
        problems: list[Problem] = []
        dropped = 0
        for file in header.splits[split]:
            found = _parse(file, problems)
            names = [faces.path for faces in found]
            root = header.root
            part = next((name for name in ("train", "val", "test") if f"_{name}_" in file.name), split)
            places = [root / f"WIDER_{part}" / "images", root / f"WIDER_{part}", root / "images", root / part, root]
            folders = ImageFolders(places, names, root, config)
            for faces in found:
                reason = unsafe_name(faces.path)
                if reason is not None:
                    message = f"{faces.path!r}: {reason}"
                    problems.append(Problem(file.name, None, codes.BAD_PATH, message, "image dropped", "error"))
                item = None if reason else folders.item(folders.find(faces.path), file, faces, problems)
                items += [item] if item is not None else []
                dropped += item is None
        return Listing(tuple(sorted(items, key=lambda item: item.image.as_posix())), tuple(problems), dropped)

    def read(self, item: Item, image: ImageHeader, header: DatasetHeader, config: DataConfig) -> Labels:
        """Faces as boxes, invalid ones as ignore regions."""
        faces = item.content
        assert isinstance(faces, _Faces)
        found = Collector(item.label_name, image.size, config, Wanted.of(config, None, ()), f"{faces.path}: ")
        for line, text in faces.rows:
            try:
                _read_row(text, line, found)
            except EntryError as error:
                found.drop("", error, line)
        return found.labels(len(faces.rows))


def _files(folder: Path) -> list[Path]:
    return sorted([*folder.glob(_PATTERN), *folder.glob(f"wider_face_split/{_PATTERN}")])


def _read_row(text: str, line: int, found: Collector) -> None:
    fields = text.split()
    try:
        values = [int(field) for field in fields]
    except ValueError:
        raise EntryError(codes.NOT_A_NUMBER, f"expected whole numbers, got {text[:60]!r}") from None
    if len(values) not in (4, 10):
        expected = "x y w h blur expression illumination invalid occlusion pose"
        raise EntryError(codes.BAD_COLUMN_COUNT, f"expected 10 fields ({expected}), got {len(values)}")
    x, y, w, h = values[:4]
    box = found.clip((float(x), float(y), float(x + w), float(y + h)), "", line=line)
    if len(values) == 10 and values[_INVALID]:
        found.ignore(box, 0)
    else:
        found.add(ReadObject(0, box), tuple(values[:4]), "", line)
        for name in _MORE if len(values) == 10 else ():
            found.leave_out(f"values of {name}")


def _parse(file: Path, problems: list[Problem]) -> list[_Faces]:
    try:
        lines = file.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read: {error}") from None
    result: list[_Faces] = []
    position = 0
    while position < len(lines):
        path = lines[position].strip()
        position += 1
        if not path:
            continue
        if not _is_image(path):
            message = f"expected the path of an image, got {path[:60]!r}"
            problems.append(Problem(file.name, position, codes.BAD_PATH, message, "line skipped"))
            continue
        rows: list[tuple[int, str]] = []
        count = lines[position].strip() if position < len(lines) else ""
        if not count.isdigit():
            message = f"{path}: expected the number of faces, got {count[:60]!r}"
            problems.append(
                Problem(file.name, position + 1, codes.BAD_COUNT, message, "rows up to the next image are read")
            )
            count = ""
        else:
            position += 1
        while position < len(lines) and not _is_image(lines[position].strip()):
            position += 1
            if lines[position - 1].strip():
                rows.append((position, lines[position - 1]))
        result.append(_Faces(path, tuple(rows if count != "0" else ())))
        if count not in ("", "0") and int(count) != len(rows):
            message = f"{path}: {count} faces are announced, {len(rows)} rows follow"
            problems.append(Problem(file.name, position, codes.BAD_COUNT, message, "the rows are read"))
    return result


def _is_image(line: str) -> bool:
    return Path(line).suffix.lower() in IMAGE_SUFFIXES
