# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Charts of a dataset."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from boxwright.errors import ShapeError
from boxwright.viz.lettering import Image


def class_counts(names: Sequence[str], counts: Mapping[str, Sequence[int]]) -> Image:
    """Bars of how many objects each class has, one colour per split, as in {"train": [..], "val": [..]}.

    Raises:
        ShapeError: a split does not have one count per name.
    """
    from matplotlib.figure import Figure

    for split, values in counts.items():
        if len(values) != len(names):
            raise ShapeError(f"class_counts: expected {len(names)} counts for {split}, got {len(values)}")
    height = float(np.clip(0.3 * len(names) * max(1, len(counts) * 0.6) + 1.2, 2.5, 40))
    figure = Figure(figsize=(8, height), layout="constrained", dpi=120)
    axes = figure.add_subplot()
    thickness = 0.8 / max(len(counts), 1)
    for turn, (split, values) in enumerate(counts.items()):
        where = np.arange(len(names)) + (turn - (len(counts) - 1) / 2) * thickness
        bars = axes.barh(where, values, height=thickness * 0.92, label=split, color=f"C{turn}")
        axes.bar_label(bars, padding=3, fontsize=8, color="0.3")
    axes.set_yticks(range(len(names)), [name.replace("$", r"\$") for name in names])
    axes.invert_yaxis()
    axes.set_xlabel("objects")
    axes.margins(x=0.12, y=0.01)
    axes.spines[["top", "right"]].set_visible(False)
    if len(counts) > 1:
        axes.legend(frameon=False)
    return _rendered(figure)


def _rendered(figure: Any) -> np.ndarray:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # shown as a box; the picture stays useful
        canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]
