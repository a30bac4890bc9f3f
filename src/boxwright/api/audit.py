# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The front door of the audit: which rule a model's objects learn by, and what a trained model says of the labels."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from boxwright.api import Model, Settings, configure, load
from boxwright.auditor.errors_ranked import LEAST, FoundBoxes, LabelError, errors_of_image, ranked
from boxwright.auditor.labels import SplitLabels
from boxwright.auditor.learnable import CellRule, PriorRule, QueryRule, Rule, Setting
from boxwright.auditor.result import Audit
from boxwright.auditor.run import audit_and_records
from boxwright.datasets.formats import open_dataset
from boxwright.datasets.images import read_image
from boxwright.datasets.sample import Records, Split
from boxwright.engine.logs import Listener, stage
from boxwright.engine.recipe import Recipe
from boxwright.errors import ConfigError, DataError
from boxwright.losses.assign.anchor_ratio import AnchorRatio
from boxwright.losses.assign.hungarian import Hungarian
from boxwright.losses.assign.task_aligned import TaskAligned
from boxwright.losses.criterion import Criterion
from boxwright.models.network import Network
from boxwright.presets import preset
from boxwright.results import Detections
from boxwright.vocabulary import TASKS, task_with

FAMILY = "yolov8n"  # whose rule is asked where no model is named
BATCH = 8  # images that a model looks at together


def audit(
    data: str | Path,
    *,
    model: str | None = None,
    imgsz: int | None = None,
    weights: str | Path | Model | None = None,
    splits: Sequence[Split] | None = None,
    pixels: bool = True,
    settings: Settings | None = None,
    device: str = "auto",
    listener: Listener | None = None,
) -> Audit:
    """Looks a dataset over: faults, oddities, and objects that can never be learned. It changes nothing.

    A dataset that is broken, or cannot even be opened, is a finding and no exception.

    Args:
        data: a dataset of any format.
        model: a preset, whose assigner and image size are asked; None: that of the weights, or YOLOv8 for the
            dataset's task.
        imgsz: side of the network input, px; None: the model's own.
        weights: a trained model, to rank label errors by its detections.
        splits: those to look at; None: all.
        pixels: decode every image once, to find copies, leaks and damaged files.
        settings: changes to the recipe, for example {"criterion.rules.main.assigner.min_side": 16}.
        device: where the model runs.
        listener: hears progress.

    Raises:
        ConfigError: an unknown preset or setting, or weights without a class of this dataset.
        CheckpointError: the weights cannot be read.
    """
    listener = listener or Listener()
    trained = weights if isinstance(weights, Model) or weights is None else load(weights)
    base = trained.recipe if trained is not None and model is None else preset(model or _default(data))
    chosen = configure(base, settings, imgsz=imgsz)
    chosen = replace(chosen, data=replace(chosen.data, source=str(data)))
    name = model or (chosen.name if trained is not None else _default(data))
    stages = _Stages(listener)
    try:
        found, held = audit_and_records(
            data, setting_of(chosen, name), chosen.data, splits=splits, pixels=pixels, on_progress=stages
        )
    finally:
        stages.end()
    if trained is None or found.header is None:
        return found
    errors: list[LabelError] = []
    for split, records in held.items():
        errors += _suspected(trained, records, found.labels[split], imgsz, device, listener)
    return replace(found, errors=ranked(errors), weights=str(trained.path))


def setting_of(recipe: Recipe, name: str = "") -> Setting | None:
    """How the recipe's model would see the images; None where it assigns no objects (classification)."""
    if not isinstance(recipe.criterion, Criterion):
        return None
    rules = recipe.criterion.rules
    with torch.device("meta"):
        network = recipe.model.build()
    dense = {role: rule.assigner for role, rule in rules.items() if isinstance(rule.assigner, TaskAligned)}
    if dense:
        role = max(dense, key=lambda one: dense[one].topk)
        chosen = dense[role]
        found: Rule = CellRule(
            strides=network.strides,
            asked=chosen.topk,
            min_side=chosen.min_side,
            smallest_side=chosen.smallest_side,
            level_range=chosen.level_range,
        )
    else:
        role = next(iter(rules))
        found = _other(recipe, rules[role].assigner, network)
    return Setting(found, recipe.data.imgsz, recipe.data.fit, name, role)


def _other(recipe: Recipe, assigner: object, network: Network) -> Rule:
    head = getattr(recipe.model, "head", None)
    if isinstance(assigner, AnchorRatio):
        anchors = tuple(tuple((float(w), float(h)) for w, h in level) for level in getattr(head, "anchors", ()))
        return PriorRule(strides=network.strides, anchors=anchors, ratio=assigner.ratio, bias=assigner.bias)
    if isinstance(assigner, Hungarian):
        return QueryRule(queries=int(getattr(head, "queries", 300)))
    return CellRule(strides=network.strides, asked=1)  # others too choose among cells inside the box


def _default(data: str | Path) -> str:
    try:
        task = open_dataset(data).task
    except DataError:
        task = None
    return FAMILY + TASKS[task or task_with()].suffix


# -- label errors --------------------------------------------------------------------------------------------------


def _suspected(
    model: Model, records: Records, labels: SplitLabels, imgsz: int | None, device: str, listener: Listener
) -> Iterator[LabelError]:
    classes = _class_map(model, records.header.names, str(records.header.source))
    predictor = model.predictor(imgsz=imgsz, conf=LEAST, device=device, batch=BATCH)
    policy = model.recipe.data.image
    total = len(records.records)
    with stage(listener, f"asking the model about {records.split}", total):
        for start in range(0, total, BATCH):
            places, pixels = [], []
            for place in range(start, min(start + BATCH, total)):
                try:
                    pixels.append(read_image(records.records[place].image, policy))
                    places.append(place)
                except DataError:
                    continue  # the audit has a finding about it
            for place, found in zip(places, predictor(pixels) if pixels else (), strict=True):
                yield from errors_of_image(
                    labels, place, _found(found, classes), records.records[place].instances.ignore
                )
            listener.advance(min(start + BATCH, total), {})


def _class_map(model: Model, names: Sequence[str], source: str) -> np.ndarray:
    """The dataset's class of each class of the model; -1 where it has none of that name."""
    place: Mapping[str, int] = {name: row for row, name in enumerate(names)}
    found = np.array([place.get(name, -1) for name in model.names], np.int64)
    if (found < 0).all():
        raise ConfigError(
            f"{source}: {model.path} knows none of its classes ({', '.join(names[:5])}); it knows "
            f"{', '.join(model.names[:5])}"
        )
    return found


def _found(found: object, classes: np.ndarray) -> FoundBoxes:
    if not isinstance(found, Detections):
        raise ConfigError("audit: expected weights of a model that finds objects, got a classifier")
    labels = classes[found.labels.cpu().numpy()]
    kept = labels >= 0
    boxes = found.enclosing.cpu().numpy().astype(np.float64)
    return FoundBoxes(boxes[kept], found.scores.cpu().numpy().astype(np.float64)[kept], labels[kept])


class _Stages:
    """Progress that names its stage, for a listener: each new name ends the stage before it."""

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self.current = ""

    def __call__(self, name: str, done: int, total: int) -> None:
        if name != self.current:
            self.end()
            self.current = name
            self.listener.stage(name, total)
        self.listener.advance(done, {})

    def end(self) -> None:
        if self.current:
            self.listener.end_stage()
            self.current = ""
