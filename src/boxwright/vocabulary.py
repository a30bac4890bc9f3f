# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""What labels and outputs can say: tasks, classes, keypoints, attributes. Plain values; imports no torch.

Datasets, models, results and exported files speak of the same things with these types.
"""

from typing import Literal, get_args

from boxwright.config import component
from boxwright.errors import ConfigError

TaskName = Literal["detect", "segment", "pose", "obb", "classify"]
TASK_NAMES: tuple[TaskName, ...] = get_args(TaskName)


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
