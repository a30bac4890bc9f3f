# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""What labels and outputs can say: tasks, classes, keypoints, attributes. Plain values; imports no torch.

Datasets, models, results and exported files speak of the same things with these types. What a task is stands in
`TASKS`, one row each: code asks a row for what it has to know and never compares a task's name.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from boxwright.config import component
from boxwright.errors import ConfigError

TaskName = Literal["detect", "segment", "pose", "obb", "classify"]
TASK_NAMES: tuple[TaskName, ...] = get_args(TaskName)


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """What a task learns and finds beside the class of each object, and what its models are called.

    >>> TASKS["obb"].oriented, TASKS["obb"].boxes_only, TASKS["detect"].boxes_only
    (True, False, True)
    """

    suffix: str  # behind a preset's family and size: yolov8n + -seg
    classes: int  # of the published models: COCO, its people, DOTA v1, ImageNet
    whole_image: bool = False  # one class of the whole image; there are no objects
    outlines: bool = False  # of every object, for its mask
    keypoints: bool = False  # of every object
    oriented: bool = False  # boxes have an angle

    @property
    def boxes_only(self) -> bool:
        """Objects with upright boxes and nothing finer: what labels of objects for any other task can be read for."""
        return not (self.whole_image or self.outlines or self.keypoints or self.oriented)


TASKS: Mapping[TaskName, TaskFacts] = {
    "detect": TaskFacts(suffix="", classes=80),
    "segment": TaskFacts(suffix="-seg", classes=80, outlines=True),
    "pose": TaskFacts(suffix="-pose", classes=1, keypoints=True),
    "obb": TaskFacts(suffix="-obb", classes=15, oriented=True),
    "classify": TaskFacts(suffix="-cls", classes=1000, whole_image=True),
}


def task_with(
    *, whole_image: bool = False, outlines: bool = False, keypoints: bool = False, oriented: bool = False
) -> TaskName:
    """The task of exactly these facts; of none, the one of boxes only.

    >>> task_with(keypoints=True), task_with()
    ('pose', 'detect')

    Raises:
        ConfigError: no task has all of them.
    """
    wanted = (whole_image, outlines, keypoints, oriented)
    for name, facts in TASKS.items():
        if (facts.whole_image, facts.outlines, facts.keypoints, facts.oriented) == wanted:
            return name
    asked = ", ".join(
        what for what, given in zip(("whole_image", "outlines", "keypoints", "oriented"), wanted, strict=True) if given
    )
    raise ConfigError(f"task: expected facts of one of {', '.join(TASKS)}, got {asked} together")


@component
class AttributeSpec:
    """A named extra answer about every object: one of its values, or any number of them (`multi_label`)."""

    name: str
    values: tuple[str, ...]
    multi_label: bool = False

    def __post_init__(self) -> None:
        if not self.name:
            raise ConfigError("attributes: expected a name for every attribute, got an empty one")
        least = 1 if self.multi_label else 2
        if len(self.values) < least or len(set(self.values)) != len(self.values):
            raise ConfigError(
                f"attributes.{self.name}: expected at least {least} different values, got {list(self.values)}"
            )


@component
class KeypointSpec:
    """The keypoints of an object: how many, what they are called, which are left-right pairs, how they are drawn."""

    count: int
    dims: Literal[2, 3] = 3  # numbers of each keypoint in labels and outputs: x, y and, with 3, its visibility
    names: tuple[str, ...] = ()  # empty: unknown
    flip: tuple[int, ...] | None = None  # index that each keypoint has in a mirrored image; None: unknown, no mirroring
    skeleton: tuple[tuple[int, int], ...] = ()  # pairs of indices (from 0) that a drawing joins
    sigmas: tuple[float, ...] | None = None  # tolerance of each; None: COCO's for 17 keypoints, else 1 / count

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ConfigError(f"keypoints.count: expected at least 1, got {self.count}")
        for name in ("names", "flip", "sigmas"):
            value = getattr(self, name)
            if value and len(value) != self.count:
                raise ConfigError(f"keypoints.{name}: expected {self.count} entries, got {len(value)}")
        if self.flip is not None and (
            sorted(self.flip) != list(range(self.count)) or any(self.flip[j] != i for i, j in enumerate(self.flip))
        ):
            raise ConfigError(
                f"keypoints.flip: expected an order of 0 to {self.count - 1} that undoes itself, got {list(self.flip)}"
            )
        for pair in self.skeleton:
            if not all(0 <= index < self.count for index in pair):
                raise ConfigError(f"keypoints.skeleton: expected indices from 0 to {self.count - 1}, got {list(pair)}")


@component
class Vocabulary:
    """How to read a model's outputs: what travels with weights and exported files."""

    task: TaskName = "detect"
    names: tuple[str, ...] = ()  # by class index
    class_ids: tuple[int, ...] | None = None  # the dataset's own id of each class, where it differs from the index
    exclusive: bool = False  # every object has exactly one of the classes
    keypoints: KeypointSpec | None = None
    attributes: tuple[AttributeSpec, ...] = ()
