# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""How a run tells the outside what it does, and the table of numbers it keeps. Imports no torch.

The engine never prints: it calls a `Listener`. The command line shows progress bars from it, a notebook may plot.
"""

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal

MessageSeverity = Literal["info", "warning", "error"]


class Listener:
    """Hears what a run does; this base class ignores everything, so a subclass overrides only what it shows.

    Stages do not nest: one ends before the next begins. Only rank 0 of a distributed run calls a listener.
    """

    def stage(self, name: str, total: int) -> None:
        """A piece of work of `total` steps begins, for example "train 3/40"."""

    def advance(self, done: int, values: Mapping[str, float]) -> None:
        """`done` steps of the current stage are finished.

        In training `values` holds the component losses ("main/box"), "lr", "images/s" and "eta_s" (seconds until the
        last epoch ends).
        """

    def end_stage(self) -> None:
        """The current stage is over, finished or not."""

    def message(self, text: str, severity: MessageSeverity = "info") -> None:
        """Something a person should read."""

    def metrics(self, row: Mapping[str, float]) -> None:
        """One epoch is over: its row of `metrics.csv` ("epoch", "train/main/box", "val/box/ap50_95", "lr", ...)."""


@contextmanager
def stage(listener: Listener, name: str, total: int) -> Iterator[None]:
    """`listener.stage` and a certain `end_stage`, also when the work inside fails."""
    listener.stage(name, total)
    try:
        yield
    finally:
        listener.end_stage()


@contextmanager
def counted_stage(listener: Listener, name: str) -> Iterator[Callable[[int, int], None]]:
    """A stage whose length is known at its first step: yields the `on_progress(done, total)` that the work is given."""
    begun = False

    def on_progress(done: int, total: int) -> None:
        nonlocal begun
        if not begun:
            listener.stage(name, total)
            begun = True
        listener.advance(done, {})

    try:
        yield on_progress
    finally:
        if begun:
            listener.end_stage()


def metrics_table(rows: Sequence[Mapping[str, float]]) -> str:
    """The CSV text of all epochs: one row each, the union of their keys as columns in order of appearance.

    A value that an epoch does not have (validation every few epochs) stays empty.

    >>> print(metrics_table([{"epoch": 1.0, "lr": 0.5}, {"epoch": 2.0, "lr": 0.25, "val/box/ap50": 0.125}]), end="")
    epoch,lr,val/box/ap50
    1,0.5,
    2,0.25,0.125
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([[_cell(row.get(name)) for name in columns] for row in rows])
    return text.getvalue()


def _cell(value: float | None) -> str:
    if value is None:
        return ""
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else f"{value:.6g}"
