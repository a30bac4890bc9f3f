# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Writes what code knows into the pages on models and tasks: sizes of all presets, and a picture of each task's labels.

The tables of docs/models.md stand between two marks; the text around them is written by hand.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from boxwright import viz
from boxwright.datasets.sample import Record
from boxwright.drawn.drawn_shapes import ATTRIBUTES, FIGURE, STYLES
from boxwright.drawn.synthetic import draw_scene
from boxwright.loading.collate import TargetLayout, truth_of
from boxwright.presets import families, preset
from boxwright.vocabulary import TASK_NAMES, TaskName

HERE = Path(__file__).parent
PAGE = HERE / "models.md"
BEGIN, END = "<!-- Sizes: made by docs/build_models.py, `make docs` -->", "<!-- End of sizes -->"
SIDE = 192  # px of a drawn scene
ENLARGE = 1.5
SCENES = 3
QUALITY = 78  # JPEG; keeps a picture below 60 kB


def counts(name: str) -> tuple[int, int]:
    """Parameters, and multiply-accumulates for one image of the preset's own size; no memory is taken for either."""
    recipe = preset(name)
    with torch.device("meta"):
        network = recipe.model.build().eval()
    total = 0

    def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        weight: Tensor = module.weight  # type: ignore[assignment]
        spread = inputs[0] if isinstance(module, nn.ConvTranspose2d) else output
        total += spread.numel() * weight[0].numel()

    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            module.register_forward_hook(add)
    with torch.no_grad():
        network(torch.empty(1, 3, recipe.data.imgsz, recipe.data.imgsz, device="meta"))
    return sum(parameter.numel() for parameter in network.parameters()), total


def cell(name: str) -> str:
    """One preset's numbers: millions of parameters, thousand millions of multiply-accumulates."""
    parameters, operations = counts(name)
    return f"{parameters / 1e6:.2f} / {operations / 1e9:.2f}"


def tables(sizes: int | None = None) -> str:
    """A table for each family, a row for each size (or for the first `sizes`), a column for each task."""
    parts = []
    for family, tasks in families().items():
        detect = tasks["detect"]
        lines = [f"### {family}", "", f"| preset | {' | '.join(tasks)} |", "|---|" + "---:|" * len(tasks)]
        for index, name in enumerate(detect[:sizes]):
            lines.append(f"| `{name}` | {' | '.join(cell(names[index]) for names in tasks.values())} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def filled(text: str) -> str:
    """The page with tables computed anew."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{tables()}\n\n{END}{rest.partition(END)[2]}"


def picture(task: TaskName) -> np.ndarray:
    """Drawn scenes with the labels of a task, RGB; boxes also show attributes."""
    marked = task == "detect"
    layout = TargetLayout(task=task, keypoints=FIGURE.count if task == "pose" else 0)
    if marked:
        layout = TargetLayout(task=task, attributes=ATTRIBUTES)
    shown = []
    for index in range(SCENES):
        scene = draw_scene(SIDE, 3, "val", index, task=task, attributes=marked)
        label = int(scene.instances.labels[0]) if task == "classify" else None
        record = Record(Path("scene.jpg"), (SIDE, SIDE), scene.instances, image_label=label)
        truth = truth_of(record, layout)
        attributes = ATTRIBUTES if marked else ()
        shown.append(viz.draw(scene.image, truth, STYLES[task].names, keypoints=FIGURE, attributes=attributes,
                              enlarge=ENLARGE))  # fmt: skip
    return viz.grid(shown, columns=SCENES, cell=round(SIDE * ENLARGE))


def main(words: Sequence[str] | None = None) -> None:
    """Writes page and pictures; with --smoke shows the smallest of both and writes nothing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures-only", action="store_true")
    parser.add_argument("--smoke", action="store_true", help="print one size of each family; write nothing")
    options = parser.parse_args(words)
    if options.smoke:
        print(tables(sizes=1))  # noqa: T201
        for task in TASK_NAMES:
            print(f"{task}  picture of {picture(task).shape}")  # noqa: T201
        return
    if not options.pictures_only:
        PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    for task in TASK_NAMES:
        file = HERE / "images" / f"{task}.jpg"
        cv2.imwrite(str(file), cv2.cvtColor(picture(task), cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])


if __name__ == "__main__":
    main()
