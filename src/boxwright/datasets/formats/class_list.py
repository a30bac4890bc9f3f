# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""`classes.txt`: one class name a line, in the order of their indices."""

from pathlib import Path

from boxwright.errors import DataError

_CLASS_LISTS = ("classes.txt", "obj.names", "labels/classes.txt")


def read_class_list(source: Path) -> list[str] | None:
    """The names in the list that lies in a dataset's folder; None without one.

    Raises:
        DataError: not UTF-8, or a line without a name.
    """
    for name in _CLASS_LISTS:
        file = source / name
        if file.is_file():
            try:
                lines = file.read_text("utf-8-sig").splitlines()
            except UnicodeDecodeError as error:
                raise DataError(f"{file}: byte {error.start} is not UTF-8 text; save the file as UTF-8") from None
            while lines and not lines[-1].strip():
                lines.pop()
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    raise DataError(f"{file}, line {number}: empty; expected a class name in every line")
            return [line.strip() for line in lines] or None
    return None
