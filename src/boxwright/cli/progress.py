# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Progress of a run: bars on a terminal, plain lines elsewhere, and one table line per epoch in both.

Imports no torch.
"""

import time
from collections.abc import Callable, Mapping

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from boxwright.cli.console import is_terminal, out
from boxwright.engine.logs import Listener, MessageSeverity

REFRESH = 4  # per second; drawing must not take a core from training
PLAIN_EVERY = 20.0  # seconds between two plain lines of one stage
HEADER_EVERY = 25  # epochs after which the column names are repeated
STYLES: dict[MessageSeverity, str] = {"info": "", "warning": "yellow", "error": "bold red"}
KINDS = {"mask": "mask ", "pose": "pose ", "obb": "", "box": ""}  # what AP is of -> the word before it
MOST_BRANCHES = 2  # branches whose losses are shown one by one; more are summed by term


def make_listener(console: Console | None = None) -> "ConsoleListener":
    """Bars where a person watches, plain lines where a file does."""
    if console is None:
        console = out()
        return BarListener(console) if is_terminal() else PlainListener(console)
    return BarListener(console) if console.is_terminal else PlainListener(console)


class ConsoleListener(Listener):
    """What both forms share: messages and the table of epochs."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self.console = console
        self.clock = clock
        self.epochs: int | None = None  # from the stage name "train 3/40"
        self.pace: dict[str, float] = {}  # images/s and eta_s of the last training step
        self.rows = 0

    def stage(self, name: str, total: int) -> None:
        """Remembers how many epochs there will be."""
        if name.startswith("train ") and name.rpartition("/")[2].isdigit():
            self.epochs = int(name.rpartition("/")[2])

    def advance(self, done: int, values: Mapping[str, float]) -> None:
        """Remembers the speed, which the table of epochs shows."""
        if "eta_s" in values:
            self.pace = {name: values[name] for name in ("images/s", "eta_s") if name in values}

    def message(self, text: str, severity: MessageSeverity = "info") -> None:
        """Prints the message."""
        self.console.print(escape(text), style=STYLES[severity] or None, soft_wrap=True)

    def metrics(self, row: Mapping[str, float]) -> None:
        """Prints one line of the table of epochs."""
        cells = epoch_cells(row, self.epochs, self.pace)
        if self.rows % HEADER_EVERY == 0:
            self.console.print(
                "  ".join(name.rjust(len(cell)) for name, cell in cells.items()), style="bold", soft_wrap=True
            )
        self.rows += 1
        self.console.print("  ".join(cell.rjust(len(name)) for name, cell in cells.items()), soft_wrap=True)


class BarListener(ConsoleListener):
    """One bar per stage, gone when the stage is over."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(console, clock)
        self.progress: Progress | None = None
        self.task = TaskID(0)

    def stage(self, name: str, total: int) -> None:
        """Draws a new bar; one without an end for a total of 0."""
        super().stage(name, total)
        self.end_stage()
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[count]}"),
            TextColumn("{task.fields[values]}", style="cyan"),
            TimeElapsedColumn(),
            console=self.console,
            refresh_per_second=REFRESH,
            transient=True,
        )
        self.progress.start()
        self.task = self.progress.add_task(escape(name), total=total or None, count="", values="")

    def advance(self, done: int, values: Mapping[str, float]) -> None:
        """Moves the bar and writes the values beside it."""
        super().advance(done, values)
        if self.progress is not None:
            total = self.progress.tasks[0].total
            count = f"{done}/{total:.0f}" if total else str(done)
            self.progress.update(self.task, completed=done, count=count, values=values_text(values))

    def end_stage(self) -> None:
        """Removes the bar."""
        if self.progress is not None:
            self.progress.stop()
            self.progress = None


class PlainListener(ConsoleListener):
    """A line now and then, and one when a longer stage is over: for log files."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(console, clock)
        self.name, self.total = "", 0
        self.began = self.spoke = 0.0
        self.last: tuple[int, Mapping[str, float]] = (0, {})

    def stage(self, name: str, total: int) -> None:
        """Begins to count."""
        super().stage(name, total)
        self.name, self.total = name, total
        self.began = self.spoke = self.clock()
        self.last = (0, {})

    def advance(self, done: int, values: Mapping[str, float]) -> None:
        """Prints where the stage is, if some time has passed."""
        super().advance(done, values)
        self.last = (done, dict(values))
        if self.clock() - self.spoke >= PLAIN_EVERY:
            self.spoke = self.clock()
            self._print()

    def end_stage(self) -> None:
        """Prints the end of a stage that nothing else reports; an epoch has its line in the table."""
        reported_elsewhere = self.epochs is not None and self.name.startswith(("train", "val"))
        if self.name and self.last[0] and not reported_elsewhere:
            self._print(f" in {duration(self.clock() - self.began)}")
        self.name = ""

    def _print(self, end: str = "") -> None:
        done, values = self.last
        count = f"{done}/{self.total}" if self.total else str(done)
        text = "  ".join(part for part in (f"{self.name}: {count}{end}", values_text(values)) if part)
        self.console.print(escape(text), soft_wrap=True)


def values_text(values: Mapping[str, float]) -> str:
    """Losses, learning rate, speed and time left, short enough for one line.

    >>> values_text({"main/box": 1.23456, "lr": 0.001, "images/s": 31.4, "eta_s": 125.0})
    'box 1.235  lr 1.00e-03  31 img/s  2:05 left'
    """
    parts = []
    for name, value in by_term(values).items():
        if name == "images/s":
            parts.append(f"{value:.0f} img/s")
        elif name == "eta_s":
            parts.append(f"{duration(value)} left")
        elif name == "lr":
            parts.append(f"lr {value:.2e}")
        else:
            parts.append(f"{name.rpartition('/')[2]} {value:.4g}")
    return "  ".join(parts)


def by_term(values: Mapping[str, float]) -> Mapping[str, float]:
    """The values with losses of many layers summed by term; up to two branches stay apart.

    >>> by_term({"decoder/giou": 1.0, "decoder1/giou": 2.0, "encoder/giou": 3.0, "lr": 0.1})
    {'giou': 6.0, 'lr': 0.1}
    """
    losses = [name for name in values if "/" in name and name != "images/s"]
    if len({name.rpartition("/")[0] for name in losses}) <= MOST_BRANCHES:
        return values
    summed: dict[str, float] = {}
    for name, value in values.items():
        column = name.rpartition("/")[2] if name in losses else name
        summed[column] = summed.get(column, 0.0) + value
    return summed


def epoch_cells(row: Mapping[str, float], epochs: int | None, pace: Mapping[str, float]) -> dict[str, str]:
    """Column name to text for one epoch; both are padded to one width by whoever prints them."""
    cells = {"epoch": f"{row.get('epoch', 0):.0f}/{epochs}" if epochs else f"{row.get('epoch', 0):.0f}"}
    cells["epoch"] = cells["epoch"].rjust(7)
    taught = [name for name in row if name.startswith("train/") and name.count("/") > 1]
    losses = {name.removeprefix("train/"): row[name] for name in taught}
    roles = {name.rpartition("/")[0] for name in losses}
    for name, value in by_term(losses).items():
        cells[name.rpartition("/")[2] if len(roles) == 1 else name] = f"{value:7.4f}"
    if "lr" in row:
        cells["lr"] = f"{row['lr']:8.2e}"
    for name, column in _scores(row).items():
        cells[column] = (f"{row[name]:.3f}" if name in row else "").rjust(8)
    if "images/s" in pace:
        cells["img/s"] = f"{pace['images/s']:6.0f}"
    if "eta_s" in pace:
        cells["left"] = duration(pace["eta_s"]).rjust(7)
    return cells


def _scores(row: Mapping[str, float]) -> dict[str, str]:
    """The two scores of an epoch that matter most, and what their columns are called."""
    if "val/top1" in row:
        return {"val/top1": "top-1", "val/top5": "top-5"}
    kind, word = next(((kind, word) for kind, word in KINDS.items() if f"val/{kind}/ap50" in row), ("box", ""))
    return {f"val/{kind}/ap50": f"{word}mAP50", f"val/{kind}/ap50_95": f"{word}mAP50-95"}


def duration(seconds: float) -> str:
    """Minutes and seconds, hours where there are any.

    >>> duration(3725.0), duration(65.0), duration(2.5)
    ('1:02:05', '1:05', '0:02')
    """
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
