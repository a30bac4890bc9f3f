# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Pictures by name: a drawing function registers itself, a template asks for it."""

from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999933", "#882255")
DASHES = ("-", "-.", "--", ":", "-", "-.", "--", ":", "-")  # curves that lie on each other can be told apart
INCH_DOTS = 100
STYLE = {
    "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25,
    "lines.linewidth": 1.6, "legend.frameon": False, "svg.hashsalt": "boxwright",
}  # fmt: skip
DRAWINGS: dict[str, Callable[[], Figure]] = {}


def drawing(function: Callable[[], Figure]) -> Callable[[], Figure]:
    """Registers a function that draws the picture of its name."""
    DRAWINGS[function.__name__] = function
    return function


def panels(count: int, *, height: float = 2.7, width: float = 3.3) -> tuple[Figure, list[Axes]]:
    """A figure with some axes side by side."""
    figure, axes = plt.subplots(1, count, figsize=(width * count, height), squeeze=False, layout="constrained")
    return figure, list(axes[0])


class Figures:
    """Draws a picture when a folder is given, and gives the Markdown that shows it."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.up = ""

    def __call__(self, name: str, caption: str) -> str:
        """Markdown of a picture.

        Raises:
            KeyError: no drawing has this name.
        """
        draw = DRAWINGS[name]
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            with mpl.rc_context({**STYLE, "axes.prop_cycle": mpl.cycler(color=COLOURS, linestyle=DASHES)}):
                figure = draw()
                figure.savefig(self.folder / f"{name}.png", dpi=INCH_DOTS, metadata={"Software": None})
                plt.close(figure)
        return f"![{caption}]({self.up}images/{name}.png)\n\n*{caption}*"
