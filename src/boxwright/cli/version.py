# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""`boxwright version`."""

import platform
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed

import typer

from boxwright.version import __version__

PACKAGES = ("torch", "numpy", "opencv-python-headless")  # what people are asked for in a bug report


def version() -> None:
    """Print versions, for bug reports."""
    typer.echo(f"boxwright {__version__}")
    typer.echo(f"python {platform.python_version()}")
    for name in PACKAGES:
        try:
            typer.echo(f"{name} {installed(name)}")
        except PackageNotFoundError:
            typer.echo(f"{name} not installed")
