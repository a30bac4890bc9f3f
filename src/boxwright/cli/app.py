# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The list of commands, and what happens to errors: one readable message, exit status 1 (2 for wrong usage)."""

import os
import sys
import traceback

import typer

from boxwright.cli.audit import audit
from boxwright.cli.data import check, convert, draw, tile
from boxwright.cli.demo import demo
from boxwright.cli.export import export
from boxwright.cli.import_weights import import_weights
from boxwright.cli.inspect import explain, inspect
from boxwright.cli.predict import predict
from boxwright.cli.recipe import recipe
from boxwright.cli.train import train
from boxwright.cli.val import val
from boxwright.cli.version import version

app = typer.Typer(
    name="boxwright",
    help="Trains, explains and ships YOLO-family object detectors.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # an unexpected exception is a bug: show it whole
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(help="Make and convert datasets.", no_args_is_help=True)
data_app.command()(draw)
data_app.command()(convert)
data_app.command()(tile)
app.command()(train)
app.command()(val)
app.command()(predict)
app.command()(export)
app.command(name="import")(import_weights)
app.command()(inspect)
app.command()(explain)
app.command()(recipe)
app.command()(check)
app.command()(audit)
app.add_typer(data_app, name="data")
app.command()(demo)
app.command()(version)


def main() -> None:
    """Runs the command line and leaves with its exit status."""
    from boxwright.cli.console import fail, log_to_console
    from boxwright.errors import BoxwrightError

    log_to_console()
    try:
        app()
    except BoxwrightError as error:
        fail(error)
        _leave_ranks()
        sys.exit(1)
    except Exception:
        if _several_ranks():
            traceback.print_exc()
            _leave_ranks()
        raise


def _several_ranks() -> bool:
    return os.environ.get("WORLD_SIZE", "1") not in ("", "1")


def _leave_ranks() -> None:
    """Under torchrun, ends this process at once: a broken process group's destructor can wait forever."""
    if _several_ranks():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)
