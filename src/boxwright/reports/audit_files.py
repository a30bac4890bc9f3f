# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""An audit on disk: one JSON file with everything, a JSON (and Parquet) file for each table, a page of label errors."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from boxwright.auditor.result import Audit
from boxwright.datasets.policy import ImagePolicy
from boxwright.errors import DataError
from boxwright.reports.gallery import DEFAULT_POLICY, gallery
from boxwright.table import Table


def write_audit(
    folder: Path,
    audit: Audit,
    formats: Sequence[Literal["json", "parquet"]] = ("json",),
    policy: ImagePolicy = DEFAULT_POLICY,
) -> list[Path]:
    """Writes into a folder, which must not lie inside the dataset; the files written.

    Raises:
        DataError: the folder lies inside the dataset, or a file cannot be written.
        ConfigError: Parquet without pyarrow.
    """
    root = None if audit.header is None else audit.header.root.resolve()
    if root is not None and root.is_dir() and folder.resolve().is_relative_to(root):
        raise DataError(f"{folder}: lies inside the dataset {audit.source}, which is never written to; name another")
    tables: dict[str, Table] = {
        "classes": audit.classes,
        "candidates": audit.candidates,
        "remedies": audit.remedies,
        **({} if audit.errors is None else {"label_errors": audit.errors}),
    }
    made = [folder / "audit.json"]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        made[0].write_text(json.dumps(audit.to_dict(), indent=1, ensure_ascii=False), encoding="utf-8")
        if audit.errors is not None:
            made.append(folder / "label_errors.html")
            made[1].write_text(gallery(audit.errors, f"Label errors of {audit.source.name}", policy), encoding="utf-8")
    except OSError as error:
        raise DataError(f"{folder}: cannot be written: {error.strerror}") from None
    for name, table in tables.items():
        for kind in formats:
            made.append(folder / f"{name}.{kind}")
            (table.to_json if kind == "json" else table.to_parquet)(made[-1])
    return made
