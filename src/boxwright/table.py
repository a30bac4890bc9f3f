# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""A table: named columns of equal length. What the inspector hands to terminals, notebooks, files and reports."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from boxwright.errors import ConfigError, DataError, ShapeError


class Table:
    """Columns as numpy arrays (numbers, truth values or text), in a fixed order; nobody writes into them."""

    __slots__ = ("columns",)

    def __init__(self, columns: Mapping[str, np.ndarray | Sequence[Any]]) -> None:
        self.columns: dict[str, np.ndarray] = {name: np.asarray(column) for name, column in columns.items()}
        lengths = {name: len(column) for name, column in self.columns.items()}
        if len(set(lengths.values())) > 1:
            raise ShapeError(f"Table: expected columns of one length, got {lengths}")

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()))) if self.columns else 0

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.columns:
            raise ConfigError(f"Table: no column {name!r}; there are {', '.join(self.columns)}")
        return self.columns[name]

    def __contains__(self, name: str) -> bool:
        return name in self.columns

    def take(self, rows: np.ndarray) -> "Table":
        """Some rows, by index or by mask."""
        return Table({name: column[rows] for name, column in self.columns.items()})

    def by(self, name: str, *, descending: bool = True) -> "Table":
        """All rows in the order of a column; equal ones keep theirs."""
        keys = self[name]
        order = np.argsort(-keys if descending else keys, kind="stable")
        return self.take(order)

    def head(self, count: int) -> "Table":
        """The first rows."""
        return self.take(np.arange(min(count, len(self))))

    def with_columns(self, columns: Mapping[str, np.ndarray | Sequence[Any]]) -> "Table":
        """The same rows with more (or other) columns."""
        return Table({**self.columns, **columns})

    def rows(self) -> Iterator[dict[str, Any]]:
        """One plain dict per row."""
        lists = [column.tolist() for column in self.columns.values()]
        return (dict(zip(self.columns, values, strict=True)) for values in zip(*lists, strict=True))

    def turned(self) -> "Table":
        """Columns as rows: for a table of few rows that is too wide to read. Its first column names the new ones."""
        first, *others = self.columns
        titles = [f"{first} {value}" for value in self.columns[first].tolist()]
        cells = {title: [self.columns[name][row].item() for name in others] for row, title in enumerate(titles)}
        return Table({"": others, **{title: np.array(held, dtype=object) for title, held in cells.items()}})

    def to_json(self, path: Path) -> None:
        """Writes a list of one object per row; what is not finite becomes null.

        Raises:
            DataError: the file cannot be written.
        """
        rows = [{name: _plain(value) for name, value in row.items()} for row in self.rows()]
        try:
            path.write_text(json.dumps(rows, allow_nan=False), encoding="utf-8")
        except OSError as error:
            raise DataError(f"{path}: cannot be written: {error.strerror}") from None

    def to_parquet(self, path: Path) -> None:
        """Writes one column per column.

        Raises:
            ConfigError: pyarrow is not installed.
            DataError: the file cannot be written.
        """
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError:
            raise ConfigError(
                f"{path}: Parquet needs pyarrow; pip install 'boxwright[parquet]', or write JSON"
            ) from None
        columns = {name: pyarrow.array(column.tolist()) for name, column in self.columns.items()}
        try:
            parquet.write_table(pyarrow.table(columns), path)
        except OSError as error:
            raise DataError(f"{path}: cannot be written: {error}") from None


def join_tables(tables: Sequence[Table]) -> Table:
    """All rows, one table after the other; a column that a table lacks is filled with NaN, 0 or "" there."""
    names = list(dict.fromkeys(name for table in tables for name in table.columns))
    joined = {}
    for name in names:
        parts = [table.columns.get(name) for table in tables]
        kind = next(part.dtype for part in parts if part is not None)
        joined[name] = np.concatenate(
            [_filler(kind, len(table)) if part is None else part for table, part in zip(tables, parts, strict=True)]
        )
    return Table(joined)


def _filler(kind: np.dtype[Any], count: int) -> np.ndarray:
    if kind.kind == "f":
        return np.full(count, np.nan, kind)
    if kind.kind == "O":
        return np.full(count, "", kind)
    return np.zeros(count, kind)


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not np.isfinite(value) else value
