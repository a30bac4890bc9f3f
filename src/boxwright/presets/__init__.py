# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Room of the recipes: a published model is a name and a function that returns a complete `Recipe`.

Lives here: one file per family with its numbers (widths, depths, gains, assigner constants), and the list `PRESETS`.
May import: `engine` (Recipe), `tasks` and everything below. This file imports none of them until a recipe is asked for,
so that names are known without torch.
Add a family: `presets/<family>.py` with one function, and its line in `PRESETS` below.
Must never happen here: network code, a loop, a number without its source.
"""

import difflib
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from boxwright.errors import ConfigError
from boxwright.vocabulary import TASK_NAMES, TASKS, AttributeSpec, KeypointSpec, TaskName

if TYPE_CHECKING:
    from boxwright.engine.recipe import Recipe


def _build(module: str, function: str, size: str, task: TaskName, **options: Any) -> "Recipe":
    family = getattr(import_module(f"boxwright.presets.{module}"), function)
    return family(size, task=task, **options)  # type: ignore[no-any-return]


def _family(
    prefix: str, sizes: Sequence[str], tasks: Sequence[TaskName], module: str, function: str
) -> "dict[str, partial[Recipe]]":
    return {
        f"{prefix}{size}{TASKS[task].suffix}": partial(_build, module, function, size, task)
        for task in tasks
        for size in sizes
    }


_LIGHT = (
    "mobilenetv3",
    "shufflenetv2",
    "mobilenetv3-published",
    "mobilenetv3-published-stem",
    "shufflenetv2-published",
    "shufflenetv2-published-stem",
    "shufflenetv2-published-focus",
)

_RTDETR = ("r18", "r34", "r50m", "r50", "r101", "l", "x", "resnet50", "resnet101")

# Name -> what builds its recipe: every family function takes (size, *, task, num_classes, exclusive, keypoints,
# attributes, imgsz), as `preset` passes them.
PRESETS: "dict[str, partial[Recipe]]" = {
    **_family("yolov8", "nsmlx", TASK_NAMES, "yolov8", "yolov8"),
    **_family("yolo11", "nsmlx", TASK_NAMES, "yolo11", "yolo11"),
    **_family("yolov10", "nsmblx", ("detect",), "yolov10", "yolov10"),
    **_family("yolo26", "nsmlx", ("detect",), "yolo26", "yolo26"),
    **_family("yolov5", "nsmlx", ("detect", "segment"), "yolov5", "yolov5"),
    **_family("yolov5", ("n6", "s6", "m6", "l6", "x6"), ("detect", "segment"), "yolov5", "yolov5_p6"),
    **_family("yolov5", ("s-r5", "m-r5", "l-r5", "x-r5"), ("detect",), "yolov5", "yolov5_r5"),
    **_family("yolov5-", _LIGHT, ("detect",), "yolov5_light", "yolov5_light"),
    **_family("yolov5", ("nu", "su", "mu", "lu", "xu"), ("detect",), "yolov5u", "yolov5u"),
    **_family("rtdetr-", _RTDETR, ("detect",), "rtdetr", "rtdetr"),
}


def families() -> dict[str, dict[TaskName, list[str]]]:
    """The names of all presets by family and task, in the order of `PRESETS`."""
    found: dict[str, dict[TaskName, list[str]]] = {}
    for name, build in PRESETS.items():
        _, function, _, task = build.args
        found.setdefault(function.replace("_", " "), {}).setdefault(task, []).append(name)
    return found


def preset(
    name: str,
    *,
    num_classes: int | None = None,
    exclusive: bool = False,
    keypoints: KeypointSpec | None = None,
    attributes: Sequence[AttributeSpec] = (),
    imgsz: int | None = None,
) -> "Recipe":
    """The recipe of a published model for a dataset's classes.

    Args:
        name: one of `PRESETS`, or the path of a YAML table of layers (`models/layer_table.py`).
        num_classes: of the dataset; None: that of the published weights (80, oriented 15, pose 1, images 1000).
        exclusive: every object has exactly one of the classes.
        keypoints: of a pose model; None: COCO's 17.
        attributes: named extra answers about every object.
        imgsz: px, side of the network input; None: the family's. Where gains depend on it, they follow.

    Raises:
        ConfigError: no preset has this name, or the family cannot do what is asked.
    """
    asked = {
        "num_classes": num_classes,
        "exclusive": exclusive,
        "keypoints": keypoints,
        "attributes": tuple(attributes),
        "imgsz": imgsz,
    }
    if name.endswith((".yaml", ".yml")):
        return import_module("boxwright.presets.from_table").table(name, **asked)  # type: ignore[no-any-return]
    if name not in PRESETS:
        close = difflib.get_close_matches(name.lower(), PRESETS, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else f"known presets: {', '.join(PRESETS)}"
        raise ConfigError(f"{name}: unknown preset; {hint}")
    return PRESETS[name](**asked)
