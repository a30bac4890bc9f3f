# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""How drawn scenes are written down: YOLO rows of each task, and the data.yaml."""

from collections.abc import Sequence

import numpy as np

from boxwright.datasets.sample import Instances
from boxwright.drawn.drawn_shapes import FIGURE, STYLES
from boxwright.vocabulary import TASKS, AttributeSpec, TaskName


def label_rows(objects: Instances, side: int, task: TaskName, attributes: Sequence[AttributeSpec] = ()) -> str:
    """The rows of a label file; attributes come last, an index each, or 0 / 1 for every value.

    Source: spec/datasets 1.
    """
    rows = []
    for row, label in enumerate(objects.labels.tolist()):
        fields = [str(label), *_coordinates(objects, row, side, task)]
        for spec in attributes:
            value = (objects.attributes or {})[spec.name][row]
            fields += [str(int(one)) for one in np.atleast_1d(value)]
        rows.append(" ".join(fields) + "\n")
    return "".join(rows)


def _coordinates(objects: Instances, row: int, side: int, task: TaskName) -> list[str]:
    facts = TASKS[task]
    if facts.outlines and objects.polygons is not None:
        points = np.concatenate(objects.polygons[row])
        return _numbers((points.astype(np.float64) / side).clip(0, 1).ravel().tolist())
    if facts.oriented and objects.corners is not None:
        return _numbers((objects.corners[row].astype(np.float64) / side).ravel().tolist())
    x1, y1, x2, y2 = (objects.boxes[row].astype(np.float64) / side).tolist()
    fields = _numbers([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1])
    if facts.keypoints and objects.keypoints is not None:
        for x, y, seen in objects.keypoints[row].astype(np.float64).tolist():
            fields += [*_numbers([x / side, y / side]), str(int(seen))]
    return fields


def _numbers(values: list[float]) -> list[str]:
    return [f"{value:.8f}" for value in values]


def describe(
    counts: dict[str, int], imgsz: int, seed: int, task: TaskName, attributes: Sequence[AttributeSpec] = ()
) -> str:
    """The text of the data.yaml; for whole-image labels, which need none, a note of what was drawn."""
    sizes = " ".join(f"{split}={count}" for split, count in counts.items())
    facts = TASKS[task]
    asked = "" if facts.boxes_only else f" task={task}"
    asked += " attributes" if attributes else ""
    head = f"# Drawn by boxwright: {sizes} imgsz={imgsz} seed={seed}{asked}\n"
    if facts.whole_image:
        return head
    names = "".join(f"  {index}: {name}\n" for index, name in enumerate(STYLES[task].names))
    text = f"{head}train: images/train\nval: images/val\nnames:\n{names}"
    if not facts.boxes_only:
        text += f"task: {task}\n"
    if facts.keypoints:
        text += f"kpt_shape: [{FIGURE.count}, {FIGURE.dims}]\nflip_idx: {list(FIGURE.flip or ())}\n"
        text += f"skeleton: {[list(pair) for pair in FIGURE.skeleton]}\nkpt_names: [{', '.join(FIGURE.names)}]\n"
    if attributes:
        text += "attributes:\n" + "".join(_attribute(spec) for spec in attributes)
    return text


def _attribute(spec: AttributeSpec) -> str:
    values = f"[{', '.join(spec.values)}]"
    return f"  {spec.name}: " + (f"{{values: {values}, multi_label: true}}\n" if spec.multi_label else f"{values}\n")
