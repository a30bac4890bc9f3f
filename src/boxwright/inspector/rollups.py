# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Who pays, summed up: by class, size, level or image."""

from typing import Literal

import numpy as np

from boxwright.errors import ConfigError
from boxwright.inspector.probe import Inspection
from boxwright.table import Table

Group = Literal["class", "size", "image", "level"]
_ORDER = {"small": 0, "medium": 1, "large": 2}


def roll_up(inspection: Inspection, by: Group) -> Table:
    """One row per group: objects, how many learn nothing, positives, and the loss by item.

    Levels count pairs, as an object may learn on several; the other groups count objects. The losses of a table sum to
    what all objects pay.

    Raises:
        ConfigError: pairs of queries, which have no levels.
    """
    if by == "level":
        return _by_level(inspection)
    table = inspection.objects
    if not len(table):
        return Table({})
    keys = table["path"] if by == "image" and any(table["path"]) else table[by]
    names = sorted(set(keys.tolist()), key=lambda key: (_ORDER.get(key, 0), key) if by == "size" else (0, key))
    groups = [keys == name for name in names]
    items = [name for name in table.columns if "/" in name and table[name].dtype == np.float64]
    total = max(float(table["loss"].sum()), 1e-300)
    return Table(
        {
            by: names,
            "objects": [int(group.sum()) for group in groups],
            "without_positive": [int((table["positives"][group] == 0).sum()) for group in groups],
            "positives_mean": [float(table["positives"][group].mean()) for group in groups],
            "loss": [float(table["loss"][group].sum()) for group in groups],
            "loss_share": [float(table["loss"][group].sum()) / total for group in groups],
            "loss_mean": [float(table["loss"][group].mean()) for group in groups],
            "gradient_mean": [float(table["gradient"][group].mean()) for group in groups],
            **{item: [float(table[item][group].sum()) for group in groups] for item in items},
        }
    )


def _by_level(inspection: Inspection) -> Table:
    table = inspection.pairs
    if len(table) and "stride" not in table:
        raise ConfigError("roll_up: pairs of queries have no levels; group by class, size or image")
    if not len(table):
        return Table({})
    strides = np.unique(table["stride"]).tolist()
    groups = [table["stride"] == stride for stride in strides]
    return Table(
        {
            "stride": strides,
            "pairs": [int(group.sum()) for group in groups],
            "overlap_mean": [float(table["overlap"][group].mean()) for group in groups],
            "score_mean": [float(table["score"][group].mean()) for group in groups],
            "loss": [float(table["loss"][group].sum()) for group in groups],
            **({"clipped": [int(table["clipped"][group].sum()) for group in groups]} if "clipped" in table else {}),
        }
    )
