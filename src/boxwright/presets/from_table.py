# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""A recipe around a network that a user described as a YAML table of layers.

Source: spec/architectures 3 to 5 for the tables; the training is that of the family whose head the table has.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from boxwright.engine.recipe import Recipe
from boxwright.errors import ConfigError
from boxwright.losses.dense_recipes import end_to_end_detect, end_to_end_progressive
from boxwright.models.classifier import ClassifierConfig
from boxwright.models.heads.anchor_based import AnchorBasedConfig
from boxwright.models.heads.anchor_free import AnchorFreeConfig
from boxwright.models.layer_table import read_layer_table
from boxwright.presets.dense import Asked, dense_recipe, image_recipe
from boxwright.presets.yolov5 import anchor_recipe
from boxwright.vocabulary import TaskName, task_with


def table(path: str, **asked: Any) -> Recipe:
    """The recipe of the network in a YAML file; what is asked for replaces the file's class count and keypoints.

    Of several scales the file's key `scale` is taken, or the letter its name ends with (`mine-n.yaml`, `yolov8n.yaml`).

    Raises:
        ConfigError: the file cannot be read, is not such a table, or its task has no use for what was asked.
    """
    file = Path(path)
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as a table of layers: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a mapping with the keys nc, backbone and head")
    named = file.stem[-1:] if "scale" not in values and file.stem[-1:] in (values.get("scales") or {}) else None
    try:
        model = read_layer_table(values, named)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    if isinstance(model, ClassifierConfig):
        want = Asked(**{**asked, "task": "classify", "num_classes": asked.get("num_classes") or model.num_classes})
        want.check(path, ("classify",))
        return replace(image_recipe(file.stem, "", model.backbone, want), name=file.stem)
    head = model.head
    assert isinstance(head, AnchorFreeConfig | AnchorBasedConfig)
    want = Asked(**{**asked, "task": _task(head), "num_classes": asked.get("num_classes") or head.num_classes})
    want.check(path, (want.task,))
    shared: dict[str, Any] = {"num_classes": want.classes, "exclusive": want.exclusive, "attributes": want.attributes}
    if isinstance(head, AnchorBasedConfig):
        parts: dict[str, Any] = {"backbone": model.backbone, "neck": model.neck, "head": replace(head, **shared)}
        return replace(anchor_recipe(file.stem, want, **parts), name=file.stem)
    free = replace(head, **shared, keypoints=want.keypoints or head.keypoints)
    criterion = None
    if free.end_to_end:
        if not want.facts.boxes_only:
            raise ConfigError(f"{path}: end-to-end heads detect only, got a head for {want.task}; leave out end2end")
        criterion = end_to_end_detect() if free.num_bins > 1 else end_to_end_progressive(num_bins=1)
    recipe = dense_recipe(file.stem, "", want, backbone=model.backbone, neck=model.neck, head=free, criterion=criterion)
    return replace(recipe, name=file.stem)


def _task(head: AnchorFreeConfig | AnchorBasedConfig) -> TaskName:
    return task_with(
        outlines=head.masks is not None,
        keypoints=head.keypoints is not None,
        oriented=isinstance(head, AnchorFreeConfig) and head.oriented,
    )
