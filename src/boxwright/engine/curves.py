# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The training curves of a run as one picture."""

import io
import math
from collections.abc import Mapping, Sequence

_WIDTH = 4  # panels per row
_SKIPPED = ("epoch", "seconds")


def training_curves(rows: Sequence[Mapping[str, float]]) -> bytes:
    """PNG of every number over the epochs; a training loss and its validation loss share a panel.

    `rows` are those of `metrics.csv`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = _panels(rows)
    high = max(1, math.ceil(len(panels) / _WIDTH))
    figure = Figure(figsize=(3.4 * _WIDTH, 2.6 * high), layout="constrained")
    FigureCanvasAgg(figure)
    for index, (title, names) in enumerate(panels.items()):
        axes = figure.add_subplot(high, _WIDTH, index + 1)
        for name in names:
            points = [(row["epoch"], row[name]) for row in rows if name in row]
            marker = "." if len(points) < 60 else None
            axes.plot([x for x, _ in points], [y for _, y in points], marker=marker, label=name.partition("/")[0])
        axes.set_title(title, fontsize=9)
        axes.grid(alpha=0.3)
        axes.tick_params(labelsize=7)
        if len(names) > 1:
            axes.legend(fontsize=7)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def _panels(rows: Sequence[Mapping[str, float]]) -> dict[str, list[str]]:
    """Panel title to the columns it shows: columns that differ only in `train/` or `val/` share one."""
    columns = dict.fromkeys(name for row in rows for name in row if name not in _SKIPPED)
    panels: dict[str, list[str]] = {}
    for name in columns:
        kind, _, rest = name.partition("/")
        panels.setdefault(rest if kind in ("train", "val") and rest else name, []).append(name)
    return panels
