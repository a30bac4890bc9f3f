# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Finding image files: folders, text lists and links, without leaving the dataset by accident."""

import os
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from boxwright.datasets import codes
from boxwright.datasets.formats.base import shown
from boxwright.datasets.sample import Problem
from boxwright.errors import DataError

IMAGE_SUFFIXES = frozenset((".bmp", ".dng", ".jpeg", ".jpg", ".mpo", ".png", ".tif", ".tiff", ".webp", ".pfm", ".heic"))
_OTHER_PICTURES = frozenset((".gif", ".pdf", ".svg", ".avif", ".jp2", ".psd", ".exr", ".heif", ".ico"))
_ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar")
_NEVER_A_LINK = IMAGE_SUFFIXES | {".txt", ".xml"}
_FOLLOW = "data.follow_links=true follows it"
_LINK_TEXT_BYTES = 1024  # a link checked out as a text file holds one short path


@dataclass(slots=True)
class Found:
    """Image files as the user's paths name them, and what was met on the way."""

    images: list[Path] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    dropped: int = 0


def refuse_archive(source: Path) -> None:
    """Raise for archives: they are never unpacked.

    Raises:
        DataError: `source` is an archive.
    """
    if source.is_file() and source.name.lower().endswith(_ARCHIVES):
        raise DataError(f"{source}: archives are not read; unpack it and name the folder")


def _link_text(file: Path) -> str | None:
    try:
        if file.stat().st_size > _LINK_TEXT_BYTES:
            return None
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    text = text.strip()
    return None if not text or "\n" in text or "\0" in text else text


def reach(path: Path) -> Path:
    """The path to open for a path as the dataset names it.

    Version control without link support writes a symbolic link as a small text file that holds the target; such a
    file is followed like the link it stands for, when it leads to a folder.
    """
    for part in (path, *path.parents):  # os.path and not Path: a name that is too long is no error here
        if os.path.isdir(part):  # noqa: PTH112
            return path
        if os.path.isfile(part):  # noqa: PTH113
            text = None if part is path and part.suffix.lower() in _NEVER_A_LINK else _link_text(part)
            target = part.parent / text if text else part
            return target / path.relative_to(part) if target.is_dir() else path
    return path


def list_folder(folder: Path, root: Path, follow_links: bool) -> Found:
    """Image files below a folder, sorted, with links inside it treated as the policy says."""
    found = Found()
    real = reach(folder)
    allowed = real, root
    visited = {real.resolve()}

    def walk(real_folder: Path, named_folder: Path) -> None:
        with os.scandir(real_folder) as entries:
            ordered = sorted(entries, key=lambda entry: entry.name)
        for entry in ordered:
            named = named_folder / entry.name
            if entry.is_symlink() and not follow_links and not _may_follow(entry, named, root, allowed, found):
                continue
            if entry.is_dir():
                target = Path(entry.path).resolve() if follow_links else None
                if target is None or target not in visited:
                    visited.update([target] if target else [])
                    walk(Path(entry.path), named)
            else:
                _take_file(named, root, found)

    walk(real, folder)
    found.images.sort(key=lambda path: path.as_posix())
    return found


def _may_follow(entry: "os.DirEntry[str]", named: Path, root: Path, allowed: tuple[Path, ...], found: Found) -> bool:
    name = shown(named, root)
    if entry.is_dir():
        found.problems.append(
            Problem(name, None, codes.LINK_NOT_FOLLOWED, f"a link to a folder; {_FOLLOW}", "folder skipped")
        )
        return False
    if named.suffix.lower() not in IMAGE_SUFFIXES or not leads_outside(Path(entry.path), allowed):
        return True
    found.dropped += 1
    found.problems.append(link_outside(name))
    return False


def leads_outside(path: Path, allowed: tuple[Path, ...]) -> bool:
    """Whether a file is a link to a place outside all allowed folders."""
    return path.is_symlink() and not any(path.resolve().is_relative_to(place.resolve()) for place in allowed)


def link_outside(name: str) -> Problem:
    """The problem to report for such a file."""
    return Problem(name, None, codes.LINK_OUTSIDE, f"a link out of the dataset; {_FOLLOW}", "image dropped")


def _take_file(named: Path, root: Path, found: Found) -> None:
    suffix = named.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        found.images.append(named)
    elif suffix in _OTHER_PICTURES:
        found.dropped += 1
        message = f"{suffix[1:].upper()} files are not read for training; convert it to PNG or JPEG"
        found.problems.append(Problem(shown(named, root), None, codes.IMAGE_UNSUPPORTED, message, "image dropped"))


def list_lines(file: Path) -> list[str]:
    """The lines of a text file that names images.

    Raises:
        DataError: it cannot be read, or is not UTF-8.
    """
    try:
        return file.read_bytes().decode("utf-8-sig").splitlines()
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: byte {error.start} is not UTF-8 text; save the list as UTF-8") from None


def list_text(file: Path, root: Path) -> Found:
    """Image files named in a text file, in sorted order.

    A line is an absolute path, or relative to the dataset's root, or, with a leading `./`, to the list's own folder.
    """
    found = Found()
    name = shown(file, root)
    seen: dict[Path, int] = {}
    for line, raw in enumerate(list_lines(file), 1):
        entry = raw.strip()
        if not entry:
            continue
        if "\0" in entry:
            found.dropped += 1
            found.problems.append(Problem(name, line, codes.BAD_PATH, "the path holds a zero byte", "line dropped"))
            continue
        path = _list_entry(entry, file, root)
        if path in seen:
            message = f"{entry} is already listed in line {seen[path]}"
            found.problems.append(Problem(name, line, codes.DUPLICATE_IMAGE, message, "line dropped"))
            continue
        seen[path] = line
    found.images.extend(sorted(seen, key=lambda path: path.as_posix()))
    return found


def _list_entry(entry: str, file: Path, root: Path) -> Path:
    if "\\" in entry and os.sep == "/":
        entry = entry.replace("\\", "/")
    if entry.startswith("./"):
        return Path(os.path.normpath(file.parent / entry))
    if Path(entry).is_absolute():
        return Path(entry)
    for base in (root, file.parent):
        if os.path.lexists(reach(base / entry)):
            return base / entry
    return root / entry


def name_clashes(images: Iterable[Path], root: Path) -> list[Problem]:
    """Warnings about images whose names differ only by case, or only by suffix (so that they share one label file)."""
    problems: list[Problem] = []
    by_name: dict[str, Path] = {}
    by_stem: dict[str, Path] = {}
    for path in images:
        text = path.as_posix()
        stem = text[: len(text) - len(path.suffix)]
        other = by_name.setdefault(text.casefold(), path)
        if other is not path:
            message = f"differs from {shown(other, root)} only by case, so it cannot exist on every system"
            problems.append(Problem(shown(path, root), None, codes.CASE_CLASH, message, "none"))
        other = by_stem.setdefault(stem, path)
        if other is not path:
            message = f"shares its label file with {shown(other, root)}; rename one of them"
            problems.append(Problem(shown(path, root), None, codes.SAME_STEM, message, "none"))
    return problems


def spellings(stem: str) -> tuple[str, ...]:
    """A file name as given, and with composed and decomposed accents: systems differ in which they store."""
    if stem.isascii():
        return (stem,)
    return stem, unicodedata.normalize("NFC", stem), unicodedata.normalize("NFD", stem)


class LabelFolders:
    """Which label files exist, by folder, each folder listed once."""

    def __init__(self, suffix: str) -> None:
        self.suffix = suffix
        self._folders: dict[Path, tuple[Path, frozenset[str]]] = {}

    def names(self, folder: Path) -> frozenset[str]:
        """Label files of a folder; empty where there is no such folder."""
        return self._list(folder)[1]

    def _list(self, folder: Path) -> tuple[Path, frozenset[str]]:
        if folder not in self._folders:
            real = reach(folder)
            try:
                with os.scandir(real) as entries:
                    names = frozenset(entry.name for entry in entries if entry.name.endswith(self.suffix))
            except (FileNotFoundError, NotADirectoryError):
                names = frozenset()
            self._folders[folder] = real, names
        return self._folders[folder]

    def find(self, folder: Path, stem: str) -> Path | None:
        """The label file of an image; composed and decomposed accents count as equal."""
        real, names = self._list(folder)
        for name in spellings(stem):
            if name + self.suffix in names:
                return real / (name + self.suffix)
        return None
