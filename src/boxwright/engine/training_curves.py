# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The training curves of a run as one picture."""

import io
import math
from collections.abc import Mapping, Sequence

_COLUMNS = 4  # panels per row
_SCORES = ("ap50_95", "ap50", "ap75", "precision", "recall", "f1")  # metrics that get a panel; the table holds all


def training_curves(rows: Sequence[Mapping[str, float]]) -> bytes:
    """PNG of losses, learning rate and main metrics over the epochs; training and validation loss share a panel.

    `rows` are those of `metrics.csv`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    panels = panels_of(rows)
    high = max(1, math.ceil(len(panels) / _COLUMNS))
    figure = Figure(figsize=(3.4 * _COLUMNS, 2.6 * high), layout="constrained")
    FigureCanvasAgg(figure)
    for index, (title, names) in enumerate(panels.items()):
        axes = figure.add_subplot(high, _COLUMNS, index + 1)
        for name in names:
            points = [(row["epoch"], row[name]) for row in rows if name in row]
            marker = "." if len(points) < 60 else None
            axes.plot([x for x, _ in points], [y for _, y in points], marker=marker, label=name.partition("/")[0])
        axes.set_title(title, fontsize=9)
        axes.grid(alpha=0.3)
        axes.tick_params(labelsize=7)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))  # whole epochs
        if len(names) > 1:
            axes.legend(fontsize=7)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def panels_of(rows: Sequence[Mapping[str, float]]) -> dict[str, list[str]]:
    """Title of each panel and the columns it shows: every training loss beside its validation, the scores, lr.

    >>> panels_of([{"epoch": 1.0, "train/main/box": 2.0, "val/main/box": 3.0, "lr": 0.1, "val/box/ap50": 0.5}])
    {'main/box': ['train/main/box', 'val/main/box'], 'box/ap50': ['val/box/ap50'], 'lr': ['lr']}
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))
    losses = [name.removeprefix("train/") for name in columns if name.startswith("train/")]
    panels = {loss: [name for name in (f"train/{loss}", f"val/{loss}") if name in columns] for loss in losses}
    scores = [name for name in columns if name.startswith("val/") and name.rpartition("/")[2] in _SCORES]
    panels |= {name.removeprefix("val/"): [name] for name in scores}
    return panels | {name: [name] for name in ("lr",) if name in columns}
