# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Where text goes: stdout for results, stderr for errors; under torchrun only rank 0 speaks."""

import logging
import os
import sys
from functools import cache
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

if TYPE_CHECKING:
    from rich.table import Table

PLAIN_WIDTH = 160  # columns for output that goes to a file: tables must not be cut


def rank() -> int:
    """This process among those that torchrun started; 0 without torchrun."""
    text = os.environ.get("RANK", "0")
    return int(text) if text.isdigit() else 0


@cache
def out() -> Console:
    """The console of results; silent on every rank but the first."""
    return _console(stderr=False, quiet=rank() != 0)


def err() -> Console:
    """The console of errors and warnings."""
    return _console(stderr=True, quiet=False)


def _console(*, stderr: bool, quiet: bool) -> Console:
    console = Console(stderr=stderr, quiet=quiet, highlight=False, emoji=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(stderr=stderr, quiet=quiet, highlight=False, emoji=False, width=PLAIN_WIDTH)
    return console


def say(text: str = "", style: str = "") -> None:
    """One line of result; `text` is shown as it is, not read as markup."""
    out().print(escape(text), style=style or None, soft_wrap=True)


def show(table: "Table | Any") -> None:
    """A table or picture made of text."""
    out().print(table)


def fail(error: Exception) -> None:
    """The message of an error, with its kind first; other ranks than the first say who they are."""
    kind = type(error).__name__
    who = f"rank {rank()}: " if rank() else ""
    err().print(f"[bold red]{who}{kind}:[/] {escape(str(error))}", soft_wrap=True)


class _ConsoleHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        style = "yellow" if record.levelno >= logging.WARNING else ""
        err().print(escape(self.format(record)), style=style or None, soft_wrap=True)


def log_to_console() -> None:
    """Shows the package's log: everything from INFO on rank 0, warnings elsewhere."""
    logger = logging.getLogger("boxwright")
    if not logger.handlers:
        logger.addHandler(_ConsoleHandler())
        logger.propagate = False
    logger.setLevel(logging.INFO if rank() == 0 else logging.WARNING)


def is_terminal() -> bool:
    """Whether a person watches: bars are drawn then, plain lines printed otherwise."""
    return out().is_terminal and sys.stdout is not None
