# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""`boxwright recipe`: what a run would do, as a typed tree."""

from typing import Annotated

import typer

from boxwright.cli.options import Data, Preset, Settings


def recipe(
    name: Preset = None,
    data: Data = None,
    settings: Settings = None,
    presets: Annotated[bool, typer.Option("--list", help="Only list the presets, by family and task.")] = False,
) -> None:
    """Print a run's complete configuration.

    As YAML; every path in it can be given to `boxwright train --set`.
    """
    if presets or name is None:
        from boxwright.presets import families

        for family, tasks in families().items():
            typer.echo(family)
            for task, names in tasks.items():
                typer.echo(f"  {task + ':':<10}{' '.join(names)}")
        return
    from boxwright import api
    from boxwright.config import to_yaml

    typer.echo(to_yaml(api.recipe(name, data=data, settings=settings)), nl=False)
