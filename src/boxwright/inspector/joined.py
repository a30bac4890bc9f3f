# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The inspections of many batches as one: a whole split."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from boxwright.errors import ConfigError, DataError
from boxwright.inspector.probe import Inspection
from boxwright.table import Table, join_tables

TABLES = ("terms", "objects", "pairs", "candidates", "background", "images", "shares")
SUMMED = ("normalizer", "raw", "loss", "objects", "background", "images", "pairs", "not_finite")
KINDS = ("json", "parquet")


def join_inspections(parts: Sequence[Inspection], *, first_image: int = 0, worst: int | None = None) -> Inspection:
    """One inspection of all batches.

    Images are numbered on from batch to batch, terms are summed: the total is the sum of the batches' losses, and what
    objects, background and images pay still sums to it, term by term. A term's gradient is the length that the
    gradients of its batches have together (batches share no candidate). `gain` and `scale` are those of the batches
    where all agree; else `scale` is 1 and `gain` a mean, such that loss = scale * gain * value.

    Args:
        parts: in the order of the images.
        first_image: number of the first image.
        worst: background candidates that are kept, dearest first; None keeps all.

    Raises:
        ConfigError: nothing to join, or batches that name their classes differently.
    """
    if not parts:
        raise ConfigError("join_inspections: expected at least one inspection, got none")
    for index, part in enumerate(parts):
        if part.names != parts[0].names:
            raise ConfigError(
                f"join_inspections: batch {index}: classes are {list(part.names)}, those of batch 0 are "
                f"{list(parts[0].names)}; inspect all batches with the same names"
            )
    starts = first_image + np.cumsum([0, *(len(part.images) for part in parts)])
    scales = {part.scale for part in parts}
    scale = scales.pop() if len(scales) == 1 else 1.0
    background = _joined([_numbered(p.background, int(s)) for p, s in zip(parts, starts, strict=False)])
    if len(background):
        background = background.by("loss").head(len(background) if worst is None else worst)

    def of(name: str) -> Table:
        return _joined([_numbered(getattr(p, name), int(s)) for p, s in zip(parts, starts, strict=False)])

    return Inspection(
        total=sum(part.total for part in parts),
        scale=scale,
        terms=_terms(parts, scale),
        objects=of("objects"),
        pairs=of("pairs"),
        candidates=of("candidates"),
        background=background,
        images=of("images"),
        names=parts[0].names,
        paths=tuple(path for part in parts for path in part.paths),
        # Batches may differ in shape: nothing lies outside this size.
        image_size=(max(part.image_size[0] for part in parts), max(part.image_size[1] for part in parts)),
        shares=of("shares"),
        faults=tuple(fault.moved(int(s)) for p, s in zip(parts, starts, strict=False) for fault in p.faults),
    )


def write_tables(folder: Path, inspection: Inspection, kinds: Sequence[str] = KINDS) -> tuple[Path, ...]:
    """Writes every table of an inspection as FOLDER/objects.json, FOLDER/objects.parquet, and so on.

    Returns:
        The files written.

    Raises:
        ConfigError: an unknown kind, or Parquet without pyarrow; nothing is written then.
        DataError: the folder or a file cannot be written.
    """
    writers: dict[str, Callable[[Table, Path], None]] = {"json": Table.to_json, "parquet": Table.to_parquet}
    for kind in kinds:
        if kind not in writers:
            raise ConfigError(f"write_tables: kinds: expected some of {', '.join(writers)}, got '{kind}'")
    if "parquet" in kinds:
        _need_pyarrow(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be made: {error.strerror}") from None
    written = []
    for name in TABLES:
        for kind in kinds:
            path = folder / f"{name}.{kind}"
            writers[kind](getattr(inspection, name), path)
            written.append(path)
    return tuple(written)


def _need_pyarrow(folder: Path) -> None:
    try:
        import pyarrow  # noqa: F401  # asked for before anything is written
    except ImportError:
        raise ConfigError(
            f"{folder}: Parquet needs pyarrow; pip install 'boxwright[parquet]', or write JSON only"
        ) from None


def _numbered(table: Table, start: int) -> Table:
    return table.with_columns({"image": table["image"] + start}) if "image" in table and len(table) else table


def _joined(tables: Sequence[Table]) -> Table:
    """All rows; of tables without rows only the columns of the first count, and only when there are no others."""
    held = [table for table in tables if len(table)]
    return join_tables(held) if held else tables[0]


def _terms(parts: Sequence[Inspection], scale: float) -> Table:
    """One row per term, in the order of first appearance."""
    rows: dict[str, list[tuple[float, dict[str, Any]]]] = {}
    for part in parts:
        for row in part.terms.rows():
            rows.setdefault(str(row["term"]), []).append((part.scale, row))
    made = [_summed(held, scale) for held in rows.values()]
    return Table({name: [row[name] for row in made] for name in made[0]}) if made else parts[0].terms


def _summed(held: Sequence[tuple[float, dict[str, Any]]], scale: float) -> dict[str, Any]:
    first = held[0][1]
    made = {**first, **{name: sum(row[name] for _, row in held) for name in SUMMED}}
    made["value"] = sum(row["value"] * own / scale for own, row in held)
    gains = {row["gain"] for _, row in held}
    if len(gains) > 1:
        product = scale * made["value"]
        made["gain"] = made["loss"] / product if product else float(np.mean([row["gain"] for _, row in held]))
    made["gradient"] = float(np.sqrt(sum(row["gradient"] ** 2 for _, row in held)))
    return made
