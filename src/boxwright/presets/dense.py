# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""What the anchor-free families share: the parts that a task adds to the head, the loss and the data.

Source: spec/architectures 4.3, spec/losses E.3 to E.8, spec/recipe 1.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any, Protocol, runtime_checkable

from boxwright.datasets.dataset import DataConfig
from boxwright.engine.recipe import Recipe
from boxwright.errors import ConfigError
from boxwright.loading.augment.pipeline import AugmentConfig
from boxwright.losses.criterion import Criterion, Weighted
from boxwright.losses.dense_recipes import yolov8_detect, yolov8_oriented, yolov8_pose, yolov8_segment
from boxwright.losses.image_level import ImageCriterion
from boxwright.losses.terms.attributes import Attribute
from boxwright.models.backbones import BackboneConfig
from boxwright.models.classifier import ClassifierConfig
from boxwright.models.detector import DetectorConfig
from boxwright.models.heads.anchor_free import AnchorFreeConfig
from boxwright.models.heads.branches import MaskConfig
from boxwright.models.necks import NeckConfig
from boxwright.presets.coco_pose import COCO_KEYPOINTS
from boxwright.presets.scaling import Scale
from boxwright.vocabulary import TASKS, AttributeSpec, KeypointSpec, TaskFacts, TaskName

PROTOTYPE_BASE = 256  # channels before the mask prototypes, scaled as every layer
CLASSIFY_SIDE = 224  # px


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What `presets.preset` asks of a family."""

    task: TaskName = "detect"
    num_classes: int | None = None
    exclusive: bool = False
    keypoints: KeypointSpec | None = None
    attributes: tuple[AttributeSpec, ...] = ()
    imgsz: int | None = None

    def check(self, family: str, tasks: Sequence[TaskName]) -> None:
        """Refuses what the family or the task cannot do.

        Raises:
            ConfigError: a task that the family has not, keypoints without a pose, or attributes of whole images.
        """
        if self.task not in tasks:
            raise ConfigError(f"{family}: expected one of the tasks {', '.join(tasks)}, got {self.task}")
        if self.keypoints is not None and not self.facts.keypoints:
            raise ConfigError(f"{family}: keypoints belong to the task pose, got them for {self.task}")
        if self.attributes and self.facts.whole_image:
            raise ConfigError(f"{family}: attributes belong to objects, and the task classify has none")

    @property
    def facts(self) -> TaskFacts:
        """What the task is."""
        return TASKS[self.task]

    @property
    def classes(self) -> int:
        """The class count that was asked for, or the published one."""
        return self.facts.classes if self.num_classes is None else self.num_classes


@runtime_checkable  # the tests' run-time checks ask for it
class Family(Protocol):
    """A family's function: a size, and what `presets.preset` passes on."""

    def __call__(
        self,
        size: str = "n",
        num_classes: int | None = None,
        *,
        task: TaskName = "detect",
        exclusive: bool = False,
        keypoints: KeypointSpec | None = None,
        attributes: Sequence[AttributeSpec] = (),
        imgsz: int | None = None,
    ) -> Recipe:
        """The complete recipe of one size and task.

        Raises:
            ConfigError: the family has no such size or task, or the task has no use for what was asked.
        """
        ...


def family(
    name: str, sizes: Collection[str], tasks: Sequence[TaskName]
) -> Callable[[Callable[[str, Asked], Recipe]], Family]:
    """Makes a family's function of one that takes a size and everything else as `Asked`."""

    def wrap(build: Callable[[str, Asked], Recipe]) -> Family:
        @wraps(build, assigned=("__module__", "__name__", "__qualname__", "__doc__"))
        def function(size: str = "n", num_classes: int | None = None, **asked: Any) -> Recipe:
            if size not in sizes:
                raise ConfigError(f"{name}: expected one of the sizes {', '.join(sizes)}, got {size!r}")
            attributes = tuple(asked.pop("attributes", ()))
            what = Asked(num_classes=num_classes, attributes=attributes, **asked)
            what.check(name, tasks)
            return build(size, what)

        return function

    return wrap


def dense_head(asked: Asked, scale: Scale, **options: Any) -> AnchorFreeConfig:
    """The head of one size for a task; `options` are further fields of `AnchorFreeConfig`."""
    masks = MaskConfig(hidden=scale.channels(PROTOTYPE_BASE)) if asked.facts.outlines else None
    keypoints = (asked.keypoints or COCO_KEYPOINTS) if asked.facts.keypoints else None
    return AnchorFreeConfig(
        num_classes=asked.classes,
        exclusive=asked.exclusive,
        masks=masks,
        keypoints=keypoints,
        oriented=asked.facts.oriented,
        attributes=asked.attributes,
        **options,
    )


def dense_criterion(head: AnchorFreeConfig) -> Criterion:
    """The published criterion of a head's task."""
    if head.keypoints is not None:
        return yolov8_pose(sigmas=head.keypoints.sigmas)
    if head.masks is not None:
        return yolov8_segment()
    return yolov8_oriented() if head.oriented else yolov8_detect()


def with_attributes(criterion: Criterion, attributes: Sequence[AttributeSpec]) -> Criterion:
    """The criterion with a term for every attribute in each rule, gain 1, called by its name.

    Source: spec/losses E.10.

    Raises:
        ConfigError: an attribute is called as another term.
    """
    more = {spec.name: Weighted(term=Attribute(name=spec.name), gain=1.0) for spec in attributes}
    for role, rule in criterion.rules.items():
        taken = sorted(more.keys() & rule.terms.keys())
        if taken:
            raise ConfigError(f"attributes.{taken[0]}: the loss has a term of this name for role '{role}'; rename it")
    rules = {role: replace(rule, terms={**rule.terms, **more}) for role, rule in criterion.rules.items()}
    return replace(criterion, rules=rules) if more else criterion


def dense_recipe(
    family: str,
    size: str,
    asked: Asked,
    *,
    backbone: BackboneConfig,
    neck: NeckConfig,
    head: AnchorFreeConfig,
    criterion: Criterion | None = None,
) -> Recipe:
    """The complete recipe of a dense family's size; without a criterion it is that of YOLOv8 for the task."""
    return Recipe(
        name=f"{family}{size}{asked.facts.suffix}",
        model=DetectorConfig(backbone=backbone, neck=neck, head=head),
        criterion=with_attributes(criterion or dense_criterion(head), asked.attributes),
        data=DataConfig(task=asked.task, imgsz=asked.imgsz or 640),
        augment=AugmentConfig(),
    )


def image_recipe(family: str, size: str, backbone: BackboneConfig, asked: Asked) -> Recipe:
    """The complete recipe of a family's classifier."""
    return Recipe(
        name=f"{family}{size}{asked.facts.suffix}",
        model=ClassifierConfig(backbone=backbone, num_classes=asked.classes),
        criterion=ImageCriterion(),
        data=DataConfig(task=asked.task, imgsz=asked.imgsz or CLASSIFY_SIDE, fit="crop"),
        augment=AugmentConfig(),
    )
