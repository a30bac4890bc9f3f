# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Pictures of an EvaluationResult: PR, precision, recall and F1 curves, confusion matrix."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from boxwright.evaluation.result import EvaluationResult, Kind

MANY_CLASSES = 12  # above this, single classes are thin grey lines: nobody can tell 80 colours apart
MANY_CELLS = 30  # above this, the confusion matrix has no numbers in its cells


def save_plots(result: EvaluationResult, folder: Path) -> list[Path]:
    """Writes the pictures as PNG into an existing folder and returns their paths."""
    pictures: dict[str, Any] = {}
    for number, kind in enumerate(result.kind_curves):
        prefix = f"{kind}_" if number else ""  # the first kind is what everybody means
        pictures |= {f"{prefix}{name}": picture for name, picture in _curve_plots(result, kind).items()}
    names = [_plain(name) for name in result.names]
    background = len(result.confusion) > len(names)
    pictures["confusion_matrix.png"] = _confusion_plot(result.confusion, [*names, *["background"] * background])
    paths = []
    for name, figure in pictures.items():
        figure.savefig(folder / name, dpi=150)
        paths.append(folder / name)
    return paths


def _curve_plots(result: EvaluationResult, kind: Kind) -> dict[str, Any]:
    curves, total = result.kind_curves[kind], result.total_of(kind)
    best = curves.confidence
    names = [_plain(result.names[k]) for k in curves.classes]
    ap = [f"{name} {value:.3f}" for name, value in zip(names, curves.ap[:, 0], strict=True)]
    return {
        "pr_curve.png": _curve_plot(
            curves.axis, curves.pr, ap, "Recall", "Precision", f"all classes, curve AP50 {total.curve_ap50:.3f}"
        ),
        "precision_curve.png": _curve_plot(
            curves.axis, curves.precision, names, "Confidence", "Precision", f"all classes {total.precision:.2f}", best
        ),
        "recall_curve.png": _curve_plot(
            curves.axis, curves.recall, names, "Confidence", "Recall", f"all classes {total.recall:.2f}", best
        ),
        "f1_curve.png": _curve_plot(
            curves.axis, curves.f1, names, "Confidence", "F1", f"all classes {total.f1:.2f}", best
        ),
    }


def _plain(name: str) -> str:
    """A class name as text: a dollar sign would start mathematics, and long names push the plot away."""
    short = name if len(name) <= 24 else f"{name[:23]}…"
    return short.replace("$", r"\$")


def _curve_plot(
    x: np.ndarray,
    lines: np.ndarray,
    names: Sequence[str],
    x_label: str,
    y_label: str,
    mean: str,
    mark: float | None = None,
) -> Any:
    """One line per class and their mean; `mark` draws the operating point."""
    # Figure without pyplot: no global state, no window system, nothing to close.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    axes = figure.add_subplot()
    few = len(lines) <= MANY_CLASSES
    colours = _colours(len(lines))
    for line, name, colour in zip(lines, names, colours, strict=True):
        style = {"color": colour, "linewidth": 1.5, "label": name} if few else {"color": "0.75", "linewidth": 0.6}
        axes.plot(x, line, **style)
    if len(lines):
        axes.plot(x, lines.mean(axis=0), color="black", linewidth=2.5, label=mean)
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, fontsize=9)
    else:
        axes.text(0.5, 0.5, "no labels", ha="center", va="center", color="0.4")
    if mark is not None and len(lines):
        axes.axvline(mark, color="0.5", linewidth=1, linestyle="--")
        axes.annotate(
            f"best F1 at {mark:.3f}", (mark, 0.02), xytext=(4, 0), textcoords="offset points", fontsize=8, color="0.35"
        )
    axes.set(xlabel=x_label, ylabel=y_label, xlim=(0, 1), ylim=(0, 1.02))
    axes.grid(color="0.92")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _confusion_plot(matrix: np.ndarray, labels: Sequence[str]) -> Any:
    """Share of each true class (column) that was predicted as each class (row), with the counts."""
    from matplotlib.figure import Figure

    share = matrix / np.maximum(matrix.sum(axis=0, keepdims=True), 1)
    side = float(np.clip(0.55 * len(labels) + 2.5, 5.5, 16))
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(np.where(matrix > 0, share, np.nan), cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.7)
    cell = side * 72 * 0.8 / len(labels)  # points
    small = float(np.clip(0.45 * cell, 4, 9))
    axes.set_xticks(range(len(labels)), labels, rotation=90 if len(labels) > 6 else 0, fontsize=small)
    axes.set_yticks(range(len(labels)), labels, fontsize=small)
    axes.set(xlabel="true", ylabel="predicted")
    axes.set_xticks(np.arange(len(labels) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(labels) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="0.93", linewidth=0.5)
    axes.tick_params(which="minor", length=0)
    if len(labels) <= MANY_CELLS:
        for row, column in zip(*np.nonzero(matrix), strict=True):
            dark = share[row, column] > 0.5
            text = f"{share[row, column]:.2f}\n{matrix[row, column]}"
            axes.text(
                column, row, text, ha="center", va="center", fontsize=small * 0.85, color="white" if dark else "black"
            )
    return figure


def _colours(count: int) -> list[Any]:
    from matplotlib import colormaps

    table = colormaps["tab10" if count <= 10 else "tab20"]
    return [table(i % table.N) for i in range(count)]
