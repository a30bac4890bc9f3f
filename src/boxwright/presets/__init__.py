# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Room of the recipes: a published model is a name and a function that returns a complete `Recipe`.

Lives here: one file per family with its numbers (widths, depths, gains, assigner constants), and the list `PRESETS`.
May import: `engine` (Recipe), `tasks` and everything below. This file imports none of them until a recipe is asked for,
so that names are known without torch.
Add a family: `presets/<family>.py` with one function, and its names in `PRESETS` below.
Must never happen here: network code, a loop, a number without its source.
"""

import difflib
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from boxwright.errors import ConfigError

if TYPE_CHECKING:
    from boxwright.engine.recipe import Recipe


def _yolov8(size: str, num_classes: int = 80, **options: Any) -> "Recipe":
    from boxwright.presets.yolov8 import yolov8

    return yolov8(size, num_classes, **options)  # type: ignore[arg-type]


PRESETS: "dict[str, Callable[..., Recipe]]" = {f"yolov8{size}": partial(_yolov8, size) for size in "nsmlx"}


def preset(name: str, *, num_classes: int = 80, **options: Any) -> "Recipe":
    """The recipe of a published model; options go to the family's function.

    Raises:
        ConfigError: no preset has this name.
    """
    if name not in PRESETS:
        close = difflib.get_close_matches(name.lower(), PRESETS, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else f"known presets: {', '.join(PRESETS)}"
        raise ConfigError(f"{name}: unknown preset; {hint}")
    return PRESETS[name](num_classes=num_classes, **options)
